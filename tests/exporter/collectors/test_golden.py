"""What a scrape of the fixture tree is, to the byte; set UPDATE_GOLDEN=1 to write it anew."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from narthex_exporter.collectors import COLLECTORS
from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.reference import is_declared, markdown

GOLDEN = Path(__file__).parents[2] / "golden"
# What differs from run to run or from machine to machine.
VOLATILE = re.compile(
    r"^(node_scrape_collector_duration_seconds\{\S+|node_time_seconds|node_time_zone\S+"
    r"|node_timex_\w+|node_textfile_mtime_seconds\{\S+|container_last_seen\{\S+"
    r"|narthex_collector_last_success_timestamp_seconds\{\S+) \S+$",
    re.MULTILINE,
)
# The file, and whether it is OpenMetrics.
FORMATS = {"scrape.txt": False, "scrape.openmetrics.txt": True}
# promtool's complaints about names that are not ours to choose, each with its reason.
EXCUSED = (
    (
        r"node_(memory|netstat|sockstat|vmstat|zfs|memory_numa|nfs|nfsd)_\w+ .*(snake|camel)",
        "node_exporter passes the kernel's own names of fields on",
    ),
    (r"node_entropy_\w+_bits use base unit", "node_exporter counts entropy in bits"),
    (
        r"(namedprocess_scrape_\w*errors|container_memory_failcnt|smartctl_\w+) counter metrics",
        "process-exporter, cAdvisor and smartctl_exporter have counters without _total",
    ),
)


def scrape(page: Any, *, openmetrics: bool = False) -> str:
    written = Encoder().encode(page.scraper.samples(), openmetrics=openmetrics).decode()
    text = VOLATILE.sub(r"\1 ~", written)
    return text.replace(f'machine="{os.uname().machine}"', 'machine="~"')


@pytest.mark.parametrize("name", FORMATS)
def test_a_scrape_is_as_frozen(make_page: Callable[..., Any], name: str) -> None:
    text = scrape(make_page(), openmetrics=FORMATS[name])
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


def test_openmetrics_parses_with_the_reference_parser(make_page: Callable[..., Any]) -> None:
    text = scrape(make_page(), openmetrics=True).replace(" ~\n", " 0\n")
    assert list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]  # published so


def test_promtool_finds_no_fault_but_in_names_that_are_not_ours(
    make_page: Callable[..., Any],
) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=scrape(make_page()).replace(" ~\n", " 0\n"),
        capture_output=True,
        check=False,
        text=True,
    )
    excused = [re.compile(pattern) for pattern, _reason in EXCUSED]
    assert not [
        line for line in done.stderr.splitlines() if not any(each.match(line) for each in excused)
    ]


def test_every_sample_is_declared(make_page: Callable[..., Any]) -> None:
    names = {s.name for family in make_page().collect() for s in family.samples}
    # What the fixture's script leaves is not ours to declare.
    names = {name for name in names if not name.startswith("backup_")}
    assert not {name for name in names if not is_declared(name)}


def test_names_types_and_labels_are_node_exporters_own() -> None:
    rows = [line.split("\t") for line in (GOLDEN / "node-metrics.tsv").read_text().splitlines()]
    wanted = {row[0]: (row[1], set(filter(None, row[2].split(",")))) for row in rows[1:]}
    declared = {
        metric.name: (str(metric.kind), set(metric.labels))
        for collector in COLLECTORS
        for metric in collector.metrics
    }
    common = declared.keys() & wanted.keys()
    assert len(common) > 60
    assert {name: declared[name] for name in common} == {name: wanted[name] for name in common}


def test_the_reference_names_each_collector_and_flag() -> None:
    text = markdown()
    for collector in COLLECTORS:
        assert f"\n## {collector.name}\n" in text
        for option in collector.options:
            assert option.flag(collector.name) in text
