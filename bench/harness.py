"""What the exporter's benchmarks share: programs side by side, their CPU, memory and pages."""

import contextlib
import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# What Prometheus sends with each scrape.
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "Accept-Encoding": "gzip",
}
NODE_EXPORTER = "/usr/bin/prometheus-node-exporter"
PROCESS_EXPORTER = "/usr/bin/prometheus-process-exporter"


def free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port: int = free.getsockname()[1]
        return port


@dataclass
class Program:
    """A running exporter."""

    process: subprocess.Popen[bytes]
    port: int
    started: float
    first_page_seconds: float = 0.0
    connection: http.client.HTTPConnection | None = field(default=None, init=False)

    def scrape(self, path: str = "/metrics") -> bytes:
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self.connection.request("GET", path, headers=HEADERS)
        reply = self.connection.getresponse()
        page = reply.read()
        assert reply.status == 200, (reply.status, page[:200])
        return page

    def cpu_seconds(self) -> float:
        # The process' own CPU clock, ended threads included: clock_getcpuclockid(3).
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def cpu_per_scrape(self, scrapes: int, path: str = "/metrics") -> float:
        before = self.cpu_seconds()
        for _ in range(scrapes):
            self.scrape(path)
        return (self.cpu_seconds() - before) / scrapes

    def rss_mib(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("it has ended")

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@contextlib.contextmanager
def running(argv: Sequence[str], port: int) -> Iterator[Program]:
    """Start an exporter, wait for its first page, end it by its pid."""
    started = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    program = Program(process, port, started)
    try:
        while True:
            try:
                program.scrape()
            except OSError:
                program.connection = None
                assert process.poll() is None, f"{argv[0]} ended with {process.returncode}"
                assert time.monotonic() - started < 30
                time.sleep(0.005)
            else:
                break
        program.first_page_seconds = time.monotonic() - started
        yield program
    finally:
        process.terminate()
        process.wait(15)


@contextlib.contextmanager
def ours(*flags: str, state: Path | None = None) -> Iterator[Program]:
    """Start Narthex' exporter in plain text, as the peers are."""
    with tempfile.TemporaryDirectory() as folder:
        web = Path(folder) / "web.yml"
        web.write_text("{}\n")
        port = free_port()
        argv = [
            sys.executable, "-Im", "narthex_exporter", "exporter",
            f"--web.listen-address=127.0.0.1:{port}", f"--web.config.file={web}",
            f"--state.dir={state or folder}", *flags,
        ]  # fmt: skip
        with running(argv, port) as program:
            yield program


@contextlib.contextmanager
def node_exporter(*flags: str) -> Iterator[Program]:
    port = free_port()
    with running([NODE_EXPORTER, f"--web.listen-address=127.0.0.1:{port}", *flags], port) as one:
        yield one


@contextlib.contextmanager
def process_exporter(*flags: str) -> Iterator[Program]:
    port = free_port()
    argv = [PROCESS_EXPORTER, f"-web.listen-address=127.0.0.1:{port}", *flags]
    with running(argv, port) as one:
        yield one


@contextlib.contextmanager
def sleepers(count: int) -> Iterator[None]:
    """Have so many more idle processes."""
    found: list[subprocess.Popen[bytes]] = []
    try:
        found += (subprocess.Popen(["/bin/sleep", "3600"]) for _ in range(count))
        yield
    finally:
        for each in found:
            each.kill()
        for each in found:
            each.wait()


@dataclass
class Spread:
    """Some readings of the same figure."""

    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __format__(self, form: str) -> str:
        low, high = min(self.values), max(self.values)
        return f"{self.median:{form}} ({low:{form}} to {high:{form}})"


def in_turn(rounds: int, *measures: Callable[[], float]) -> list[Spread]:
    """Measure each in turn, so that what else the machine does hits all alike."""
    found: list[list[float]] = [[] for _ in measures]
    for _ in range(rounds):
        for values, measure in zip(found, measures, strict=True):
            values.append(measure())
    return [Spread(values) for values in found]


def ratios(one: Spread, other: Spread) -> Spread:
    return Spread([a / b for a, b in zip(one.values, other.values, strict=True)])


def describe_machine() -> str:
    release = os.uname().release
    return f"{os.cpu_count()} cores, Linux {release}, Python {sys.version.split()[0]}"
