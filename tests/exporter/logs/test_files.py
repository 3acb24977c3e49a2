"""Following files through everything that happens to them."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from narthex_exporter.logs.files import Files
from narthex_exporter.logs.record import FOLLOWS, Counters, Record
from narthex_exporter.logs.redact import Redactor


@dataclass
class Follower:
    """A follower whose clock stands still, and whose positions outlive it."""

    folder: Path
    positions: dict[str, str] = field(default_factory=dict)
    now: float = 0.0
    records: list[Record] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self.files = self.make()

    def make(self, **more: int) -> Files:
        return Files(
            patterns=(f"{self.folder}/*.log",),
            exclude=(f"{self.folder}/not*.log",),
            labels={"node": "n1"},
            redactor=Redactor(self.counters),
            counters=self.counters,
            positions=self.positions,
            clock=lambda: self.now,
            now_ns=lambda: 10**18,
            **more,
        )

    def look(self) -> list[str]:
        """Read until there is no more; give the new lines."""
        before = len(self.records)
        for _ in range(50):
            batch = self.files.read()
            self.records += batch.records
            self.positions.update(batch.positions)
            batch.accept()
            if not batch.bytes:
                break
        return [record.line for record in self.records[before:]]

    def later(self, seconds: float) -> list[str]:
        self.now += seconds
        return self.look()

    def restart(self) -> list[str]:
        self.files.close()
        self.files = self.make()
        return self.look()


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    made = Follower(tmp_path)
    yield made
    made.files.close()


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as out:
        out.write(text if isinstance(text, bytes) else text.encode())


def test_new_lines_are_read_as_they_come(follower: Follower, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    append(log, "1\n2\n")
    assert follower.look() == ["1", "2"]
    append(log, "3\n")
    assert follower.look() == ["3"]
    assert dict(follower.records[0].labels) == {
        "job": "file", "node": "n1", "filename": str(log),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\r\nb\n", ["a", "b"]),
        (b"\n\n", ["", ""]),
        (b"caf\xe9 \xff\n", ["caf\\xe9 \\xff"]),
        ("grün\n".encode(), ["grün"]),
        (b"a\0b\n", ["a\\x00b"]),
        (b"\0\0\0\0after a hole\n", ["after a hole"]),
        (b"x" * 600_000 + b"\n", ["x" * 262144, "x" * 262144, "x" * (600_000 - 2 * 262144)]),
    ],
    ids=["crlf", "empty", "latin-1", "utf-8", "nul", "hole", "long"],
)
def test_odd_bytes_become_readable_lines(
    follower: Follower, tmp_path: Path, data: bytes, lines: list[str]
) -> None:
    append(tmp_path / "a.log", data)
    assert follower.look() == lines


def test_bytes_that_are_not_text_stay_within_the_limit(follower: Follower, tmp_path: Path) -> None:
    append(tmp_path / "a.log", b"\xff" * 200_000 + b"\n")
    lines = follower.look()
    assert "".join(lines) == "\\xff" * 200_000
    assert max(map(len, lines)) <= 262144


def test_a_line_without_its_newline_waits_and_then_goes_as_partial(
    follower: Follower, tmp_path: Path
) -> None:
    log = tmp_path / "a.log"
    append(log, "half")
    assert follower.look() == []
    append(log, "way\n")
    assert follower.later(1) == ["halfway"]
    append(log, "never ended")
    assert follower.look() == []
    assert follower.later(6) == ["never ended"]
    assert follower.records[-1].meta == (("partial", "1"),)


def test_a_renamed_file_is_read_to_its_end_and_then_its_successor(
    follower: Follower, tmp_path: Path
) -> None:
    log = tmp_path / "a.log"
    append(log, "1\n")
    follower.look()
    append(log, "2\n")
    log.rename(tmp_path / "a.log.1")
    append(log, "3\n")
    assert follower.look() == ["2"]
    append(tmp_path / "a.log.1", "2b, by a writer that has not noticed\n")
    assert follower.later(1) == ["2b, by a writer that has not noticed", "3"]
    assert follower.counters.rotations == 1
    assert {dict(record.labels)["filename"] for record in follower.records} == {str(log)}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_hundred_rotations_lose_no_line(follower: Follower, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    wanted, before = [], descriptors()
    for turn in range(100):
        for part in range(3):
            append(log, f"{turn} {part}\n")
            wanted.append(f"{turn} {part}")
            follower.later(0.1)
        log.rename(tmp_path / f"a.log.{turn}")
        follower.later(0.25)
    follower.later(10)
    follower.later(10)
    assert [record.line for record in follower.records] == wanted
    assert descriptors() < before + 40


def test_a_successor_that_comes_later_is_found(follower: Follower, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    append(log, "1\n")
    follower.look()
    log.rename(tmp_path / "a.log.1")
    follower.look()
    append(log, "2\n")
    assert follower.later(1) == ["2"]


def test_a_truncated_file_is_read_from_its_start_and_counted(
    follower: Follower, tmp_path: Path
) -> None:
    log = tmp_path / "a.log"
    append(log, "1\n2\n3\n")
    follower.look()
    os.truncate(log, 0)
    append(log, "4\n")
    assert follower.look() == ["4"]
    assert follower.counters.truncations == 1


def test_a_truncated_file_that_has_grown_again_is_noticed(
    follower: Follower, tmp_path: Path
) -> None:
    log = tmp_path / "a.log"
    append(log, "old 1\n")
    follower.look()
    os.truncate(log, 0)
    append(log, "new 1\nnew 2, longer than before\n")
    assert follower.look() == ["new 1", "new 2, longer than before"]
    assert follower.counters.truncations == 1


def test_a_restart_goes_on_where_the_queue_says(follower: Follower, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    append(log, "1\n")
    follower.look()
    append(log, "2\n")
    assert follower.restart() == ["2"]


def test_a_batch_that_was_not_queued_is_read_again(follower: Follower, tmp_path: Path) -> None:
    append(tmp_path / "a.log", "1\n")
    assert len(follower.files.read().records) == 1
    assert follower.look() == ["1"]


def test_a_file_renamed_while_nobody_looked_is_finished(
    follower: Follower, tmp_path: Path
) -> None:
    log = tmp_path / "a.log"
    append(log, "1\n")
    follower.look()
    append(log, "2\n")
    log.rename(tmp_path / "a.log.1")
    append(log, "3\n")
    assert sorted(follower.restart()) == ["2", "3"]


def test_another_file_with_the_inode_of_one_that_is_gone_is_read_from_its_start(
    follower: Follower, tmp_path: Path
) -> None:
    log = tmp_path / "a.log"
    append(log, "first file\n")
    follower.look()
    status = log.stat()
    other = tmp_path / "b.log"
    append(other, "other, longer file\n")
    follower.look()
    key = f"file:{status.st_dev}:{other.stat().st_ino}"
    follower.positions[key] = follower.positions[f"file:{status.st_dev}:{status.st_ino}"]
    assert follower.restart() == ["other, longer file"]


def test_of_a_large_old_file_only_the_end_is_read_at_first(
    follower: Follower, tmp_path: Path
) -> None:
    follower.files = follower.make(first_read_bytes=1000)
    append(tmp_path / "a.log", "".join(f"line {n:04}\n" for n in range(1000)))
    lines = follower.look()
    assert lines[0] == "line 0901"
    assert lines[-1] == "line 0999"


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [make_fifo, make_folder, make_loop])
def test_what_is_no_file_is_left_alone(
    follower: Follower, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "odd.log")
    append(tmp_path / "a.log", "1\n")
    assert follower.look() == ["1"]


def test_excluded_files_and_links_to_followed_ones_are_not_read(
    follower: Follower, tmp_path: Path
) -> None:
    append(tmp_path / "a.log", "1\n")
    append(tmp_path / "not-this.log", "2\n")
    (tmp_path / "b.log").symlink_to(tmp_path / "a.log")
    assert follower.look() == ["1"]


def test_no_more_files_are_opened_than_allowed(follower: Follower, tmp_path: Path) -> None:
    follower.files = follower.make(max_files=3)
    for number in range(6):
        append(tmp_path / f"{number}.log", f"{number}\n")
    assert follower.look() == ["0", "1", "2"]


def test_a_busy_file_does_not_starve_the_others(follower: Follower, tmp_path: Path) -> None:
    append(tmp_path / "a.log", (b"x" * 200 + b"\n") * 8000)
    append(tmp_path / "b.log", "here\n")
    found = []
    for _ in range(2):
        batch = follower.files.read()
        batch.accept()
        found += [record.line for record in batch.records]
    assert "here" in found


def test_times_at_the_start_of_lines_are_used(follower: Follower, tmp_path: Path) -> None:
    append(
        tmp_path / "a.log",
        "2001-09-09T01:46:39.5+00:00 host one\n  continued\n2001-09-09 03:46:40,25 +0200 x\n",
    )
    follower.look()
    assert [record.ts_ns for record in follower.records] == [
        999_999_999_500_000_000, FOLLOWS, 1_000_000_000_250_000_000,
    ]  # fmt: skip
