"""Measure what a scrape of containers costs: idle ones, and ones that all work.

python bench/containers.py --count 0 50 200

The groups are files in a folder, of version 2 and with systemd's names: reading a real group costs
what the kernel takes for it on top (``--real`` makes empty ones of version 1, as root).
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from narthex_exporter.collectors import containers
from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import Node
from narthex_exporter.sources.filesystems import Filesystems
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sysfs import Sysfs

STAT = "usage_usec {0}\nuser_usec {0}\nsystem_usec 1\nnr_periods {0}\nnr_throttled 1\n"
FILES = {
    "cpu.stat": STAT + "throttled_usec 1\n",
    "cpu.max": "50000 100000\n",
    "cpu.weight": "100\n",
    "memory.current": "{0}\n",
    "memory.peak": "9000000\n",
    "memory.max": "67108864\n",
    "memory.swap.current": "0\n",
    "memory.stat": "anon {0}\nfile 3\nfile_mapped 1\ninactive_file 1\n" + "other 1\n" * 50,
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n",
    "io.stat": "8:0 rbytes={0} wbytes=1 rios=1 wios=1 dbytes=0 dios=0\n",
    "pids.current": "5\n",
    "cgroup.procs": "{1}\n",
}
TREES = ("cpu", "cpuacct", "memory", "blkio", "pids")


def folder(root: Path, number: int) -> Path:
    return root / f"sys/fs/cgroup/system.slice/docker-{number:064x}.scope"


def fill(root: Path, count: int, value: int) -> None:
    """Write groups whose numbers are ``value``."""
    (root / "sys/fs/cgroup/system.slice").mkdir(parents=True, exist_ok=True)
    (root / "sys/fs/cgroup/cgroup.controllers").write_text("cpu io memory pids\n")
    for number in range(count):
        path = folder(root, number)
        path.mkdir(exist_ok=True)
        for name, text in FILES.items():
            (path / name).write_text(text.format(value, os.getpid()))


@contextlib.contextmanager
def real(count: int) -> Iterator[None]:
    """Make groups of this machine's own."""
    made = [
        Path("/sys/fs/cgroup") / tree / f"docker/{number:064x}"
        for tree in TREES
        for number in range(count)
    ]
    try:
        for path in made:
            path.mkdir(parents=True)
        yield
    finally:
        for path in made:
            path.rmdir()
        for tree in TREES:
            with contextlib.suppress(OSError):
                (Path("/sys/fs/cgroup") / tree / "docker").rmdir()


def node(root: Path | None) -> Node:
    settings = {containers.LIMIT: 1000, containers.DOCKER_SOCKET: "/nonexistent"}
    if root is None:
        return Node(proc=Procfs(), sys=Sysfs(), filesystems=Filesystems(), settings=settings)
    return Node(
        proc=Procfs(),
        sys=Sysfs(root / "sys"),
        filesystems=Filesystems(),
        paths=Paths(sys=root / "sys", root=root),
        settings=settings,
    )


def measure(one: Node, change: Callable[[int], None], times: int = 30) -> tuple[float, int]:
    """Give the median of the seconds of CPU, and how many series there are."""
    encoder = Encoder()
    spent = []
    text = b""
    for turn in range(times):
        change(turn)
        began = time.process_time()
        with contextlib.suppress(containers.NoData):
            text = encoder.encode(look(containers.collect, one.fresh()).samples)
        spent.append(time.process_time() - began)
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    return statistics.median(spent), series


def report(kind: str, count: int, result: tuple[float, int], empty: float) -> None:
    seconds, series = result
    each = (seconds - empty) / count * 1e6 if count else 0.0
    print(
        f"{count:4} {kind:8} {seconds * 1e3:7.2f} ms {series:6} series {each:6.1f} us a container"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, nargs="+", default=[0, 50, 200])
    parser.add_argument("--real", action="store_true", help="groups of this machine's own")
    arguments = parser.parse_args()
    empty = 0.0
    for count in arguments.count:
        if arguments.real:
            with real(count):
                result = measure(node(None), lambda _turn: None)
            report("real", count, result, empty)
            empty = empty or result[0]
            continue
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            fill(root, count, 1)
            result = measure(node(root), lambda _turn: None)
            report("idle", count, result, empty)
            empty = empty or result[0]
            busy = measure(node(root), lambda turn, r=root, c=count: fill(r, c, turn + 2))  # type: ignore[misc]
            report("working", count, busy, empty)


if __name__ == "__main__":
    main()
