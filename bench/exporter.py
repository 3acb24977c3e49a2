"""Measure the exporter beside those that it replaces, and write the table of bench/README.md.

python bench/exporter.py           # print it
python bench/exporter.py --write   # put it into bench/README.md
python bench/exporter.py --only memory,leak
"""

import argparse
import http.client
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import containers
from harness import (
    HEADERS,
    Program,
    Spread,
    describe_machine,
    in_turn,
    node_exporter,
    ours,
    process_exporter,
    ratios,
    sleepers,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- bench/exporter.py begin -->", "<!-- bench/exporter.py end -->"
# node_exporter's collectors that are on by default and find something on an ordinary VM.
SAME = (
    "arp", "conntrack", "cpu", "diskstats", "dmi", "edac", "entropy", "filefd", "filesystem",
    "loadavg", "meminfo", "netclass", "netdev", "netstat", "nfs", "nfsd", "os", "pressure",
    "schedstat", "selinux", "sockstat", "softnet", "stat", "textfile", "time", "timex",
    "udp_queues", "uname", "vmstat",
)  # fmt: skip
ONE_GROUP_A_PROCESS = 'process_names:\n  - name: "{{.Comm}}:{{.PID}}"\n    cmdline: [".+"]\n'
Row = tuple[str, str, str, str, str]


def milliseconds(spread: Spread) -> str:
    return f"{Spread([value * 1000 for value in spread.values]):.2f} ms"


def host(scrapes: int = 100, rounds: int = 9) -> Iterator[Row]:
    """CPU of a scrape of the host's metrics."""
    flags = ("--collector.disable-defaults", *(f"--collector.{name}" for name in SAME))
    with ours(*flags, "--web.disable-exporter-metrics") as one, node_exporter(
        *flags, "--web.disable-exporter-metrics"
    ) as other:  # fmt: skip
        warm(one, other)
        mine, theirs = in_turn(
            rounds, lambda: one.cpu_per_scrape(scrapes), lambda: other.cpu_per_scrape(scrapes)
        )
    yield (
        f"CPU a scrape, host metrics ({len(SAME)} collectors)",
        milliseconds(mine),
        milliseconds(theirs),
        f"{ratios(mine, theirs):.2f}",
        "≤ 0.5",
    )


def processes(scrapes: int = 5, rounds: int = 5) -> Iterator[Row]:
    """CPU of a scrape of processes, one group a process, against their number."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(ONE_GROUP_A_PROCESS)
        file.flush()
        for count in (0, 500, 2000):
            flags = (
                "--collector.disable-defaults",
                "--collector.processgroups",
                f"--collector.processgroups.config={file.name}",
                "--collector.processgroups.max=100000",
            )
            with (
                sleepers(count),
                ours(*flags) as one,
                process_exporter(f"-config.path={file.name}") as other,
            ):
                warm(one, other)
                mine, theirs = in_turn(
                    rounds,
                    # As many as a full turn of what is read in rotation.
                    lambda: one.cpu_per_scrape(scrapes * 8),
                    lambda: other.cpu_per_scrape(scrapes),
                )
            yield (
                f"CPU a scrape, {count} more processes, a group each",
                milliseconds(mine),
                milliseconds(theirs),
                f"{ratios(mine, theirs):.3f}",
                "≤ 0.05" if count == 500 else "",
            )


def container_groups() -> Iterator[Row]:
    """CPU of a scrape of containers, against their number; here is no peer to be had."""
    for count in (0, 50, 200):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            containers.fill(root, count, 1)
            idle, series = containers.measure(containers.node(root), lambda _: None)
            working, _ = containers.measure(
                containers.node(root), partial(_work, root, count), times=15
            )
        yield (
            f"CPU a look, {count} containers, {series:,} series: all idle, all working",
            f"{idle * 1000:.2f} ms, {working * 1000:.2f} ms",
            "",
            "",
            "",
        )


def _work(root: Path, count: int, turn: int) -> None:
    containers.fill(root, count, turn + 2)


def start(rounds: int = 7) -> Iterator[Row]:
    """Time from the command to the first page."""

    def once() -> float:
        with ours() as one:
            return one.first_page_seconds

    def theirs() -> float:
        with node_exporter() as other:
            return other.first_page_seconds

    mine, their = in_turn(rounds, once, theirs)
    yield (
        "Cold start to the first page, all collectors",
        f"{mine:.2f} s",
        f"{their:.2f} s",
        f"{ratios(mine, their):.1f}",
        "≤ 1 s",
    )


def memory() -> Iterator[Row]:
    """Memory of the whole product's exporter, with logs and TLS, and of the two peers."""
    with product() as (pid, scrape), node_exporter() as node, process_exporter() as process:
        for _ in range(200):
            scrape()
            node.scrape()
            process.scrape()
        mine = rss_mib(pid)
        peers = node.rss_mib() + process.rss_mib()
    yield (
        "Resident memory: metrics, TLS and log shipping / sum of both peers",
        f"{mine:.1f} MiB",
        f"{peers:.1f} MiB",
        f"{mine / peers:.2f}",
        "≤ 45 MiB and ≤ 1",
    )


WARM = 3000


def leak(scrapes: int = 10_000) -> Iterator[Row]:
    """Memory and descriptors over ten thousand scrapes."""
    with product() as (pid, scrape):
        # Until every collector has had its first looks, and each heap its size.
        for _ in range(WARM):
            scrape()
        before, descriptors = rss_mib(pid), len(list(Path(f"/proc/{pid}/fd").iterdir()))
        for _ in range(scrapes):
            scrape()
        after, then = rss_mib(pid), len(list(Path(f"/proc/{pid}/fd").iterdir()))
    yield (
        f"Memory, descriptors after {WARM:,} and {scrapes + WARM:,} scrapes",
        f"{before:.1f} MiB, {descriptors} → {after:.1f} MiB, {then}",
        "",
        f"{after / before:.2f}",
        "flat",
    )


def warm(*programs: Program) -> None:
    for program in programs:
        for _ in range(10):
            program.scrape()


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("it has ended")


class product:  # noqa: N801 - used as a context manager
    """The whole product, as script/up starts it: its exporter's pid, and a scrape of it."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> tuple[int, Callable[[], bytes]]:
        from rig import make_product  # noqa: PLC0415

        self.product = make_product(Path(self.folder.name))
        done = self.product.script("up", "--detach")
        assert done.returncode == 0, done.stdout + done.stderr
        run = self.product.run
        node = run.nodes[0]
        context = ssl.create_default_context(cafile=run.scrape.ca_file)
        context.load_cert_chain(run.scrape.cert_file, run.scrape.key_file)
        host, _, port = node.url.removeprefix("https://").partition(":")
        connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)

        def scrape() -> bytes:
            connection.request("GET", "/metrics", headers=HEADERS)
            reply = connection.getresponse()
            page = reply.read()
            assert reply.status == 200, page[:200]
            return page

        # What the logs of this machine hold is shipped first.
        time.sleep(20)
        pid = node.pids.exporter
        assert pid is not None
        return pid, scrape

    def __exit__(self, *_: object) -> None:
        self.product.script("down")
        self.folder.cleanup()


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "host": host,
    "processes": processes,
    "containers": container_groups,
    "start": start,
    "memory": memory,
    "leak": leak,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by comma")
    parser.add_argument("--write", action="store_true", help="into bench/README.md")
    given = parser.parse_args()
    lines = [
        f"{describe_machine()}; median (lowest to highest) of some rounds, each program in turn.",
        "",
        "| figure | Narthex | peer | ratio | wanted |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for name in given.only.split(","):
        for row in PARTS[name]():
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    if given.write:
        text = README.read_text()
        head, rest = text.split(BEGIN)
        README.write_text("\n".join([head + BEGIN, *lines, END + rest.split(END)[1]]))


if __name__ == "__main__":
    main()
