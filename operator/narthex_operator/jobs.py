"""Do in the background what nobody asks for: reconcile, poll, renew, tidy."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Something to do every so many seconds; a run that is late is skipped, never doubled.

    ``overlap`` above 1 is for what guards itself: it may begin before the last has ended.
    """

    name: str
    seconds: float
    run: Callable[[], None]
    overlap: int = 1


def scheduler(jobs: Sequence[Job]) -> BackgroundScheduler:
    """Make a scheduler of jobs, each begun at once. It is started by its caller."""
    made = BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(sum(job.overlap for job in jobs) + 1)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 60},
        timezone=UTC,
    )
    for job in jobs:
        made.add_job(
            _guarded(job),
            "interval",
            seconds=job.seconds,
            max_instances=job.overlap,
            id=job.name,
            next_run_time=datetime.now(UTC),
        )
    return made


def _guarded(job: Job) -> Callable[[], None]:
    def run() -> None:
        try:
            job.run()
        except Exception:
            # The boundary of the background: a job that fails is told, and tried again.
            log.exception("job.failed", extra={"job": job.name})

    return run
