"""The queue on disk: in order, bounded, and alive on a full disk."""

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lokilike import Client
from narthex_exporter.logs.record import FOLLOWS, Counters, Record
from narthex_exporter.logs.spool import AHEAD_NS, SECOND, Spool, SpoolError
from shipping import metrics, shipping, until

LABELS = (("job", "a"),)
NOW = 10**18
DAY = 24 * 3600 * SECOND


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool", Counters(), now_ns=lambda: NOW)
    yield made
    made.close()


def lines(spool: Spool) -> list[str]:
    return [row.line for row in spool.take(0, max_bytes=1 << 30)]


def test_entries_come_out_in_order_and_go_when_they_are_done(spool: Spool) -> None:
    spool.put([Record(LABELS, f"{n}", meta=(("pid", "7"),)) for n in range(5)], {"file:1": "x"})
    rows = spool.take(0, max_bytes=1)
    assert [row.line for row in rows] == ["0"]
    assert (rows[0].labels, rows[0].meta) == (LABELS, (("pid", "7"),))
    spool.done(rows[0].seq, rows[0].seq)
    assert lines(spool) == ["1", "2", "3", "4"]
    assert spool.entries == 4


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        ((None, None), (NOW, NOW + 1)),
        ((NOW - 5, NOW - 9), (NOW - 5, NOW - 4)),
        ((NOW - 5, FOLLOWS), (NOW - 5, NOW - 4)),
        ((FOLLOWS, NOW + 7), (NOW, NOW + 7)),
        ((NOW + AHEAD_NS + 1, None), (NOW, NOW + 1)),
        ((NOW - 8 * DAY, NOW - 1), (NOW, NOW + 1)),
    ],
)
def test_times_rise_within_a_stream(
    spool: Spool, given: tuple[int | None, ...], settled: tuple[int, ...]
) -> None:
    spool.put([Record(LABELS, "x", ts) for ts in given], {})
    assert tuple(row.ts_ns for row in spool.take(0, max_bytes=1 << 20)) == settled


def test_a_time_that_cannot_be_is_kept_beside_the_line(spool: Spool) -> None:
    spool.put([Record(LABELS, "x", NOW + DAY)], {})
    [row] = spool.take(0, max_bytes=1 << 20)
    assert dict(row.meta) == {"orig_ts": str(NOW + DAY)}
    assert spool.counters.clock_steps == 1


def test_entries_positions_and_times_outlive_the_program(spool: Spool) -> None:
    spool.put([Record(LABELS, "1")], {"file:1": "here", "journal": "there"})
    spool.close()
    again = Spool(spool.path, Counters(), now_ns=lambda: NOW - 5)
    again.put([Record(LABELS, "2")], {})
    assert again.positions("file:") == {"file:1": "here"}
    assert [row.ts_ns for row in again.take(0, max_bytes=1 << 20)] == [NOW, NOW + 1]
    again.close()


def test_nobody_else_can_read_the_queue(spool: Spool) -> None:
    spool.put([Record(LABELS, "1")], {})
    for file in spool.path.parent.glob("spool*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_oldest_are_dropped_counted_and_told_of_when_it_is_full(tmp_path: Path) -> None:
    counters = Counters()
    spool = Spool(tmp_path / "s", counters, max_bytes=20_000, max_percent=90, now_ns=lambda: NOW)
    wanted = [f"{n:04}" for n in range(600)]
    spool.put([Record(LABELS, line) for line in wanted[:100]], {})
    on_their_way = [row.line for row in spool.take(0, max_bytes=500)]
    for start in range(100, 600, 50):
        spool.put([Record(LABELS, line) for line in wanted[start : start + 50]], {})
    spool.put([], {"x": "y"})
    kept = lines(spool)
    markers = [line for line in kept if line.startswith("gap lost=")]
    left = [line for line in kept if not line.startswith("gap")]
    assert left[: len(on_their_way)] == on_their_way
    lost_markers = counters.dropped["queue-full"] - (600 - len(left))
    assert 0 <= lost_markers < 10
    assert markers
    assert spool.bytes <= 20_000 + 500
    spool.close()


def test_a_damaged_queue_is_set_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"this is no database" * 500)
    spool = Spool(path, Counters())
    with pytest.raises(SpoolError):
        spool.put([Record(LABELS, "1")], {})
    assert spool.degraded
    spool.put([Record(LABELS, "1")], {})
    assert not spool.degraded
    assert (tmp_path / "s.damaged").exists()
    spool.close()


def test_a_failed_transaction_leaves_nothing_behind(spool: Spool) -> None:
    spool.put([Record(LABELS, "1")], {})
    blocker = sqlite3.connect(spool.path, isolation_level=None)
    blocker.execute(
        "CREATE TRIGGER no BEFORE INSERT ON positions BEGIN SELECT raise(ABORT, 'x'); END"
    )
    blocker.close()
    with pytest.raises(SpoolError):
        spool.put([Record((("job", "new"),), "2")], {"a": "b"})
    assert lines(spool) == ["1"]
    assert spool.entries == 1


def test_many_threads_share_it(spool: Spool) -> None:
    def put(name: str) -> None:
        for n in range(50):
            spool.put([Record((("job", name),), f"{n}")], {name: f"{n}"})

    threads = [threading.Thread(target=put, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spool.entries == 200
    assert len(lines(spool)) == 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a small file system needs root and mount")
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"a small file system needs the right to mount: {made.stderr!r}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_stops_the_queue_only_until_there_is_room(
    store: Client, tmp_path: Path, small_disk: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    log = logs / "a.log"
    log.write_text("before\n")
    config = {"queue": {"max_percent_of_filesystem": 90}}
    with shipping(logs, store.url, spool=small_disk / "spool", config=config) as shipper:
        until(lambda: metrics(shipper)["sent_entries"] == 1)
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as out:
            while True:
                out.write(b"x" * 4096)
        with log.open("a") as out:
            out.writelines(f"{n} {'y' * 200}\n" for n in range(10_000))
        until(lambda: metrics(shipper)["queue_degraded"] == 1)
        filler.unlink()
        until(lambda: metrics(shipper)["sent_entries"] == 10_001, seconds=30)
        assert metrics(shipper)["queue_degraded"] == 0
    check = sqlite3.connect(small_disk / "spool")
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()
    stats = store.get("index/stats", query='{job="file"}').json()
    assert stats["entries"] == 10_001
