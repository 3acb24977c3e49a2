"""Our groups beside those of Debian's process-exporter, on this machine, now."""

import contextlib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from narthex_exporter.collectors import processgroups
from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import Node
from narthex_exporter.sources.processnames import load

Series = dict[tuple[str, frozenset[tuple[str, str]]], tuple[str, float]]
# A group of its own, so that nobody else's processes move the values.
RULES = """
process_names:
  - name: "{{.Comm}}-{{.Matches.seconds}}"
    cmdline: ["^sleep (?P<seconds>4321[0-9])$"]
"""


def read(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): (family.type, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("namedprocess_")
    }


@pytest.fixture
def sleepers() -> Iterator[None]:
    made = [subprocess.Popen(["sleep", f"4321{n}"]) for n in (0, 0, 1)]
    time.sleep(0.2)
    yield
    for each in made:
        each.kill()
        each.wait()


@pytest.mark.usefixtures("sleepers")
def test_names_types_labels_and_values_are_process_exporters(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    config = tmp_path / "config.yml"
    config.write_text(RULES)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    program = ["/usr/bin/prometheus-process-exporter", "-config.path", str(config)]
    process = subprocess.Popen(
        [*program, "-web.listen-address", address, "-threads=false"], stderr=subprocess.DEVNULL
    )
    try:
        theirs = read(_fetch(f"http://{address}/metrics"))
    finally:
        process.kill()
        process.wait()
    settings = {
        processgroups.CONFIG: load(str(config)),
        processgroups.SMAPS: True,
        processgroups.WCHAN: True,
    }
    node = make_node(Path("/"), settings=settings)
    try:
        ours = read(Encoder().encode(look(processgroups.collect, node).samples).decode())
    finally:
        node.sources.close()
    assert {key: kind for key, (kind, _) in ours.items()} == {
        key: kind for key, (kind, _) in theirs.items()
    }
    assert len({name for name, _ in ours}) > 15
    for key, (_, value) in theirs.items():
        if key[0] != "namedprocess_scrape_partial_errors":
            assert ours[key][1] == pytest.approx(value, rel=0.1, abs=65536), key


def _fetch(url: str) -> str:
    for _ in range(50):
        with contextlib.suppress(OSError), urllib.request.urlopen(url) as reply:  # noqa: S310
            return str(reply.read().decode())
        time.sleep(0.1)
    raise AssertionError("process-exporter does not answer")
