"""Report how many jobs cron has, and when anacron's last ended."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import (
    NoData,
    Node,
    Sample,
    collector,
    gauge,
    limit_option,
)
from narthex_exporter.sources.cron import anacron_runs, jobs

JOBS = gauge("narthex_cron_jobs", "Jobs in cron's tables and folders.", ("source",))
MALFORMED = gauge(
    "narthex_cron_malformed_lines",
    "Lines of cron's tables that are no job; cron leaves out a whole table for one.",
    ("source",),
)
LAST_RUN = gauge(
    "narthex_anacron_last_run_timestamp_seconds",
    "When anacron last finished a job, in unixtime.",
    ("name",),
)
MOST = limit_option("max-jobs", 50, "Jobs of anacron to report at most.")


@collector(
    name="cron",
    metrics=(JOBS, MALFORMED, LAST_RUN),
    options=(MOST,),
    every_seconds=60.0,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report how many jobs cron has, and when anacron's last ended."""
    tables = jobs(node.paths.root)
    runs = anacron_runs(node.paths.root)
    if not tables and not runs:
        raise NoData("there is no cron here")
    for each in tables:
        yield JOBS.at(each.jobs, each.source)
        yield MALFORMED.at(each.malformed, each.source)
    for run in node.capped(MOST, runs):
        yield LAST_RUN.at(run.at, run.job)
