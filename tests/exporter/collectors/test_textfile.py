"""Files of scripts count as far as they are good, and never spoil a scrape."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from narthex_exporter.collectors import loadavg, textfile
from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.scrape import Scraper, look
from narthex_exporter.collectors.spec import NoData, Node

FOLDER = "var/lib/prometheus/node-exporter"
Measure = Callable[..., dict[str, float]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "root" / FOLDER
    found.mkdir(parents=True)
    (found / "good.prom").write_text("good 1\n")
    return found


def test_files_are_passed_on(measure: Measure) -> None:
    found = measure(textfile.collect)
    assert found['backup_last_success_timestamp_seconds{set="home"}'] == 1764115200
    assert found['backup_duration_seconds_bucket{le="+Inf",set="home"}'] == 30
    assert found["node_textfile_scrape_error"] == 0
    assert found[f'node_textfile_mtime_seconds{{file="/{FOLDER}/backup.prom"}}'] > 0


@pytest.mark.parametrize(
    "data",
    [
        b"bad 1\nbad 2\n",
        b"bad 1 1700000000000\n",
        b"bad 1",
        b"# TYPE bad nonsense\nbad 1\n",
        b"# TYPE good gauge\ngood 1\n",
        b'# TYPE good_x histogram\ngood_x_bucket{le="1"} 2\n',
        b"# TYPE narthex_a_count counter\nnarthex_a_count 1\n",
        b"good 1\n",
        b"# HELP good Another help.\ngood 1\n",
        b"\xff\xfe\x00",
        b"# TYPE node_load1 histogram\nnode_load1_count 1\n",
    ],
)
def test_a_bad_file_costs_itself(
    folder: Path, tmp_path: Path, measure: Measure, data: bytes
) -> None:
    (folder / "late.prom").write_bytes(data)
    found = measure(textfile.collect, tmp_path)
    assert found["node_textfile_scrape_error"] == 1
    assert found["good"] == 1
    assert "bad" not in found
    assert "node_load1_count" not in found


def test_a_conflicting_help_costs_no_sample(
    folder: Path, tmp_path: Path, measure: Measure
) -> None:
    (folder / "a.prom").write_text('# HELP shared One.\nshared{x="1"} 1\n')
    (folder / "b.prom").write_text('# HELP shared Two.\nshared{x="2"} 2\n')
    (folder / "c.prom").write_text('shared{x="3"} 3\n')
    found = measure(textfile.collect, tmp_path)
    assert [found[f'shared{{x="{n}"}}'] for n in (1, 2, 3)] == [1, 2, 3]
    assert found["node_textfile_scrape_error"] == 1


def test_what_cannot_be_read_costs_itself(folder: Path, tmp_path: Path, measure: Measure) -> None:
    (folder / "gone.prom").symlink_to("nowhere")
    (folder / "linked.prom").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("linked 2\n")
    (folder / "folder.prom").mkdir()
    os.mkfifo(folder / "fifo.prom")
    (folder / "ignored.prom.tmp").write_text("half")
    with (folder / "huge.prom").open("wb") as file:
        file.truncate(100 << 20)
    found = measure(textfile.collect, tmp_path)
    assert (found["good"], found["linked"], found["node_textfile_scrape_error"]) == (1, 2, 1)
    files = [series for series in found if series.startswith("node_textfile_mtime")]
    assert len(files) == 2


def test_no_folder_is_no_failure_until_one_is_asked_for(
    tmp_path: Path, measure: Measure, make_node: Callable[..., Node]
) -> None:
    with pytest.raises(NoData):
        look(textfile.collect, make_node(tmp_path))
    settings = {textfile.DIRECTORY: ("/nowhere",)}
    assert measure(textfile.collect, tmp_path, settings=settings) == {
        "node_textfile_scrape_error": 1
    }


def test_folders_may_be_several_and_patterns(tmp_path: Path, measure: Measure) -> None:
    for name in ("srv/a/metrics", "srv/b/metrics", "opt/c"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "x.prom").write_text(f'x{{from="{name}"}} 1\n')
    folders = textfile.DIRECTORY.parse("/srv/*/metrics, /opt/c,/opt/c")
    found = measure(textfile.collect, tmp_path, settings={textfile.DIRECTORY: folders})
    assert found['x{from="srv/b/metrics"}'] == found['x{from="opt/c"}'] == 1
    assert found["node_textfile_scrape_error"] == 0
    assert found['node_textfile_mtime_seconds{file="/srv/a/metrics/x.prom"}'] > 0


def test_a_folder_is_no_relative_path() -> None:
    with pytest.raises(ValueError, match="slash"):
        textfile.DIRECTORY.parse("metrics")


def test_more_than_the_limit_is_cut_and_told(folder: Path, tmp_path: Path, make_node: Any) -> None:
    (folder / "many.prom").write_text("".join(f'many{{n="{n}"}} 1\n' for n in range(50)))
    node = make_node(tmp_path, settings={textfile.MAX_SERIES: 20})
    found = look(textfile.collect, node)
    assert found.truncated
    text = Encoder().encode(found.samples).decode()
    assert "good 1" in text
    assert "many{" not in text


HOSTILE = """\
# HELP node_load1 Not ours.
# TYPE node_load1 counter
node_load1 99
node_load1{who="me"} 98
# TYPE node_textfile_mtime_seconds gauge
node_textfile_mtime_seconds{file="x"} 1
# TYPE node_scrape_collector_success gauge
node_scrape_collector_success{collector="loadavg"} 0
# TYPE clash_total counter
clash_total 1
# TYPE clash gauge
clash 2
# TYPE hist histogram
hist_bucket{le="1"} 1
hist_sum 3
hist_count 2
# TYPE summ summary
summ{quantile="0.5"} 1
summ_sum 3
summ_count 2
# HELP odd "Quoted" and \\\\ and \\n.
odd{a="\\"\\\\\\n{}"} NaN
"""


@pytest.mark.parametrize("style", ["text", "openmetrics"])
def test_nothing_in_a_file_makes_a_scrape_invalid(
    folder: Path, tmp_path: Path, make_node: Callable[..., Node], style: str
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/loadavg").write_text("0.25 0.5 0.75 1/2 3\n")
    (folder / "hostile.prom").write_text(HOSTILE)
    scraper = Scraper(node=make_node(tmp_path), collectors=[loadavg.collect, textfile.collect])
    encoder = Encoder()
    for _ in range(2):
        text = encoder.encode(scraper.samples(), openmetrics=style == "openmetrics").decode()
    read = openmetrics if style == "openmetrics" else plain
    families = list(read(text))  # type: ignore[no-untyped-call, unused-ignore]  # published so
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    assert {"hist": "histogram", "summ": "summary"}.items() <= {
        family.name: family.type for family in families
    }.items()
    lines = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(set(lines)) == len(lines)
    assert 'node_scrape_collector_success{collector="loadavg"} 1\n' in text
    if style == "text":
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False
        )
        assert b"error" not in done.stderr.replace(b"scrape_error", b"")


def test_a_name_of_ours_with_labels_in_another_order_counts_once() -> None:
    from narthex_exporter.collectors.spec import Sample, gauge

    ours, theirs = gauge("m", "M.", ("b", "a")), gauge("m", "M.", ("a", "b"))
    text = Encoder().encode([Sample(ours, ("1", "2"), 3), Sample(theirs, ("2", "1"), 4)])
    assert [line for line in text.decode().splitlines() if line[0] != "#"] == ['m{b="1",a="2"} 4']


def test_files_that_stay_cost_little(folder: Path, tmp_path: Path, make_node: Any) -> None:
    for file in range(10):
        (folder / f"{file}.prom").write_text(
            "".join(f'm{file}{{n="{n}"}} {n}\n' for n in range(500))
        )
    node = make_node(tmp_path)
    look(textfile.collect, node)
    began = time.process_time()
    for _ in range(10):
        assert len(look(textfile.collect, node).samples) == 10 + 1 + 11 + 1
    assert time.process_time() - began < 0.1
