"""Measure what a scrape of every process costs, beside process-exporter on the same processes.

python bench/processes.py --extra 0 500 2000
"""

import argparse
import contextlib
import http.client
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
GROUPS = 'process_names:\n  - name: "{{.PID}}-{{.Comm}}"\n    cmdline: [".+"]\n'


def free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(*command: str) -> Iterator[int]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def sleepers(count: int) -> Iterator[None]:
    made: list[subprocess.Popen[bytes]] = []
    try:
        made += [subprocess.Popen(["sleep", "3600"]) for _ in range(count)]
        yield
    finally:
        for each in made:
            each.kill()
        for each in made:
            each.wait()


def cpu_ms(pid: int) -> float:
    """Give the CPU time of a process and its ended threads. See clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid) << 3 | 2) * 1000


def resident_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def scrape(port: int, times: int, *, compressed: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Accept-Encoding": "gzip"} if compressed else {}
    for _ in range(times):
        connection.request("GET", "/metrics", headers=headers)
        connection.getresponse().read()
    connection.close()


def cost(pid: int, port: int, times: int, *, compressed: bool) -> float:
    scrape(port, 3, compressed=compressed)
    before = cpu_ms(pid)
    scrape(port, times, compressed=compressed)
    return (cpu_ms(pid) - before) / times


def measure(extra: int, folder: Path) -> None:
    config, web = folder / "groups.yml", folder / "web.yml"
    config.write_text(GROUPS)
    web.write_text("{}\n")
    our_port, their_port = free_port(), free_port()
    ours = (
        str(ROOT / ".venv/bin/narthex"), "exporter", f"--web.listen-address=127.0.0.1:{our_port}",
        f"--web.config.file={web}", f"--state.dir={folder}", "--no-logs",
        "--collector.disable-defaults", "--collector.processgroups", "--collector.processtop",
        f"--collector.processgroups.config={config}", "--collector.processgroups.max=10000",
    )  # fmt: skip
    theirs = (
        "/usr/bin/prometheus-process-exporter", "-config.path", str(config), "-threads=false",
        "-gather-smaps=false", "-web.listen-address", f"127.0.0.1:{their_port}",
    )  # fmt: skip
    with sleepers(extra), running(*ours) as us, running(*theirs) as them:
        time.sleep(3)
        for compressed in (False, True):
            our = cost(us, our_port, 32, compressed=compressed)
            their = cost(them, their_port, 4, compressed=compressed)
            print(
                f"{extra:5} extra processes {'gzip' if compressed else 'text'}: "
                f"ours {our:7.2f} ms {resident_mib(us):5.1f} MiB, "
                f"process-exporter {their:7.2f} ms {resident_mib(them):5.1f} MiB, "
                f"ratio {our / their:.3f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extra", type=int, nargs="+", default=[0, 500, 2000])
    with tempfile.TemporaryDirectory() as folder:
        for extra in parser.parse_args().extra:
            measure(extra, Path(folder))


if __name__ == "__main__":
    main()
