import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from narthex_exporter.sources.unitgroups import (
    UnitGroups,
    Usage,
    parse_io_stat,
    parse_service_bytes,
)

UNIT = "/system.slice/nginx.service"


def plant(root: Path, files: dict[str, str]) -> UnitGroups:
    for name, text in files.items():
        path = root / "fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return UnitGroups(root)


V2 = {
    "cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma misc\n",
    "system.slice/nginx.service/memory.current": "48234496\n",
    "system.slice/nginx.service/cpu.stat": (
        "usage_usec 7512034\nuser_usec 5000000\nsystem_usec 2512034\nnr_periods 0\n"
    ),
    "system.slice/nginx.service/pids.current": "9\n",
    "system.slice/nginx.service/io.stat": (
        "8:16 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n"
        "259:0 rbytes=1000 wbytes=24576 rios=4 wios=6 dbytes=0 dios=0\n"
    ),
}
V1 = {
    "memory/system.slice/nginx.service/memory.usage_in_bytes": "48234496\n",
    "pids/system.slice/nginx.service/pids.current": "9\n",
    "blkio/system.slice/nginx.service/blkio.throttle.io_service_bytes": (
        "8:16 Read 5096\n8:16 Write 32768\n8:16 Sync 1\n8:16 Async 2\n8:16 Total 37864\n"
        "Total 37864\n"
    ),
}
WANTED = Usage(memory=48234496, cpu=7.512034, tasks=9, read=5096, written=32768)


def test_version_2_tells_everything(tmp_path: Path) -> None:
    assert plant(tmp_path, V2).usage([UNIT]) == {UNIT: WANTED}


@pytest.mark.parametrize("mount", ["cpuacct", "cpu,cpuacct"])
def test_version_1_tells_the_same_from_many_trees(tmp_path: Path, mount: str) -> None:
    cpu = {f"{mount}/system.slice/nginx.service/cpuacct.usage": "7512034000\n"}
    assert plant(tmp_path, V1 | cpu).usage([UNIT]) == {UNIT: WANTED}


def test_the_hybrid_tells_cpu_time_from_the_unified_tree(tmp_path: Path) -> None:
    cpu = {"unified/system.slice/nginx.service/cpu.stat": "usage_usec 7512034\n"}
    assert plant(tmp_path, V1 | cpu).usage([UNIT]) == {UNIT: WANTED}


def test_the_recursive_file_counts_groups_below(tmp_path: Path) -> None:
    name = "blkio/system.slice/nginx.service/blkio.throttle.io_service_bytes_recursive"
    found = plant(tmp_path, V1 | {name: "8:0 Read 7\n8:0 Write 8\n"}).usage([UNIT])[UNIT]
    assert (found.read, found.written) == (7, 8)


def test_what_is_not_accounted_is_none(tmp_path: Path) -> None:
    groups = plant(tmp_path, {"cgroup.controllers": "\n", "x.service/pids.current": ""})
    assert groups.usage(["/x.service", "/gone.service", "/"]) == {
        "/x.service": Usage(),
        "/gone.service": Usage(),
        "/": Usage(),
    }


@pytest.mark.parametrize("text", ["max\n", "not a number", "\xff", "-"])
def test_what_is_no_number_is_none(tmp_path: Path, text: str) -> None:
    spoilt = {name: text for name in V2 if name != "cgroup.controllers"}
    found = plant(tmp_path, V2 | spoilt).usage([UNIT])[UNIT]
    assert (found.memory, found.cpu, found.tasks) == (None, None, None)


def test_io_without_a_line_is_nought_and_a_strange_line_is_passed_over() -> None:
    assert parse_io_stat(b"") == (0, 0)
    assert parse_io_stat(b"8:0\n8:16 rbytes=5 \xff wbytes=6 new=x\n") == (5, 6)
    assert parse_service_bytes(b"Total 0\n") == (0, 0)
    assert parse_service_bytes(b"8:0 Read\n\n8:0 Read 3 4\n8:0 Write 2\n") == (0, 2)


def test_io_that_is_no_number_is_none(tmp_path: Path) -> None:
    name = "system.slice/nginx.service/io.stat"
    found = plant(tmp_path, V2 | {name: "8:0 rbytes=x\n"}).usage([UNIT])[UNIT]
    assert (found.read, found.written) == (None, None)


@pytest.fixture
def real() -> Iterator[tuple[str, int]]:
    """A process that works, in groups of this kernel's version 1; the group's name and its pid."""
    name = f"/narthex-test-{os.getpid()}.service"
    folders = [Path(f"/sys/fs/cgroup/{each}{name}") for each in ("memory", "pids", "cpuacct")]
    process = None
    try:
        try:
            for folder in folders:
                folder.mkdir()
        except OSError as error:
            pytest.skip(f"needs root and writable version 1 groups: {error}")
        process = subprocess.Popen(
            [sys.executable, "-c", "input()\nkept = b'x' * 40_000_000\nwhile True: pass"],
            stdin=subprocess.PIPE,
        )
        for folder in folders:
            (folder / "cgroup.procs").write_text(str(process.pid))
        process.communicate(b"\n", timeout=0.5)
    except subprocess.TimeoutExpired:
        assert process is not None
        yield name, process.pid
    finally:
        if process is not None:
            process.kill()
            process.wait()
        for folder in folders:
            deadline = time.monotonic() + 5
            while folder.exists() and time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    folder.rmdir()


def test_a_real_group_tells_what_its_process_uses(real: tuple[str, int]) -> None:
    name, _ = real
    first = UnitGroups().usage([name])[name]
    assert first.tasks == 1
    assert 40_000_000 < (first.memory or 0) < 200_000_000
    assert first.cpu is not None
    time.sleep(0.3)
    second = UnitGroups().usage([name])[name]
    assert 0.02 < (second.cpu or 0) - first.cpu < 1
