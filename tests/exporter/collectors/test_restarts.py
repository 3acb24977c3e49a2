"""A service counts if it runs code of a library whose file was replaced."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import restarts
from narthex_exporter.sources.stale import maps_replaced_library, service_of

OLD = b"7f1c6e000000-7f1c6e1d5000 r-xp 00028000 fe:00 1311 /usr/lib/libssl.so.3 (deleted)\n"
NEW = b"7f1c6e000000-7f1c6e1d5000 r-xp 00028000 fe:00 1311 /usr/lib/libssl.so.3\n"
COUNT = "narthex_services_need_restart"


def start(tree: Path, pid: int, unit: str, maps: bytes) -> None:
    (tree / f"proc/{pid}").mkdir()
    (tree / f"proc/{pid}/cgroup").write_text(f"0::/system.slice/{unit}\n")
    (tree / f"proc/{pid}/maps").write_bytes(maps)


def test_services_are_counted_not_processes(measure: Callable[..., Any], tree: Path) -> None:
    assert measure(restarts.collect, tree) == {COUNT: 0}
    start(tree, 100, "ssh.service", NEW + OLD)
    start(tree, 101, "ssh.service", OLD)
    start(tree, 102, "cron.service", NEW)
    start(tree, 103, "docker-abc.scope", OLD)
    (tree / "proc/104").mkdir()
    assert measure(restarts.collect, tree) == {COUNT: 1}


@pytest.mark.parametrize(
    "line",
    [
        b"7f1c-7f1d r--p 00028000 fe:00 1311 /usr/lib/libssl.so.3 (deleted)",
        b"7f1c-7f1d r-xp 00000000 00:01 7 /memfd:x.so (deleted)",
        b"7f1c-7f1d rwxs 00000000 00:01 7 /dev/zero (deleted)",
        b"7f1c-7f1d r-xp 00000000 fe:00 7 /tmp/a.so (deleted)",
        b"(deleted)",
        b"a (deleted)",
        b"",
    ],
)
def test_what_is_no_replaced_code_does_not_count(line: bytes) -> None:
    assert not maps_replaced_library(line + b"\n" + NEW)


@pytest.mark.parametrize(
    ("cgroup", "service"),
    [
        ("0::/system.slice/ssh.service\n", "ssh.service"),
        ("12:pids:/\n1:name=systemd:/system.slice/a.service\n", "a.service"),
        ("0::/user.slice/user-0.slice/user@0.service/app.slice/b.service\n", "b.service"),
        ("0::/system.slice/c.service/payload\n", "c.service"),
        ("0::/init.scope\n", None),
        ("", None),
    ],
)
def test_a_process_belongs_to_the_innermost_service(cgroup: str, service: str | None) -> None:
    assert service_of(cgroup) == service


def test_the_kernel_says_so_of_a_library_that_was_replaced(tmp_path: Path) -> None:
    library = next(Path("/usr/lib").glob("*/libm.so.6"), None)
    if library is None:
        pytest.skip("this machine has no libm.so.6")
    # The name must look like the system's, so the parser is asked about the line alone.
    copy = Path(shutil.copy(library, tmp_path / "libm.so.6"))
    sleeper = subprocess.Popen(
        ["/bin/sleep", "60"], env=os.environ | {"LD_PRELOAD": str(copy)}, stdin=subprocess.DEVNULL
    )
    try:
        maps = Path(f"/proc/{sleeper.pid}/maps")
        while str(copy).encode() not in maps.read_bytes():
            assert sleeper.poll() is None
        copy.unlink()
        told = maps.read_bytes().replace(str(tmp_path).encode(), b"/usr/lib")
    finally:
        sleeper.kill()
        sleeper.wait()
    assert maps_replaced_library(told)
