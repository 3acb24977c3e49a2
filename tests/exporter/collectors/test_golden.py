"""What a scrape of the fixture tree is, to the byte; set UPDATE_GOLDEN=1 to write it anew."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from narthex_exporter.collectors import COLLECTORS
from narthex_exporter.collectors.reference import is_declared, markdown

GOLDEN = Path(__file__).parents[2] / "golden"
# What differs from run to run or from machine to machine.
VOLATILE = re.compile(
    r"^(node_scrape_collector_duration_seconds\{\S+|container_last_seen\{\S+|node_time_seconds"
    r"|node_time_zone\S+) \S+$",
    re.MULTILINE,
)
ACCEPTS = {
    "scrape.txt": "",
    "scrape.openmetrics.txt": "application/openmetrics-text;version=1.0.0",
}


def scrape(page: Any, accept: str = "") -> str:
    encode, _ = choose_encoder(accept)
    text = VOLATILE.sub(r"\1 ~", encode(page).decode())
    return text.replace(f'machine="{os.uname().machine}"', 'machine="~"')


@pytest.mark.parametrize("name", ACCEPTS)
def test_a_scrape_is_as_frozen(make_page: Callable[..., Any], name: str) -> None:
    text = scrape(make_page(), ACCEPTS[name])
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


def test_openmetrics_parses_with_the_reference_parser(make_page: Callable[..., Any]) -> None:
    encode, _ = choose_encoder(ACCEPTS["scrape.openmetrics.txt"])
    assert list(text_string_to_metric_families(encode(make_page()).decode()))  # type: ignore[no-untyped-call]  # published so


def test_promtool_finds_no_fault_but_in_names_that_are_not_ours(
    make_page: Callable[..., Any],
) -> None:
    encode, _ = choose_encoder("")
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=encode(make_page()),
        capture_output=True,
        check=False,
    )
    complaints = done.stderr.decode().splitlines()
    # The kernel's own names of fields, as node_exporter passes them on.
    known = re.compile(r"^node_(memory|sockstat|vmstat)_\w+ metric names should be .*camelCase")
    assert not [line for line in complaints if not known.match(line)]


def test_every_sample_is_declared(make_page: Callable[..., Any]) -> None:
    names = {s.name for family in make_page().collect() for s in family.samples}
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
            assert f"--collector.{collector.name}.{option.name}" in text
