"""TCP connections by state, on the fixtures and with real ones on loopback."""

import contextlib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import tcpstat
from narthex_exporter.collectors.spec import NoData, Node, Sample
from narthex_exporter.sources import sockdiag
from narthex_exporter.sources.filesystems import Filesystems
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sockdiag import SockDiag, TcpStates
from narthex_exporter.sources.sysfs import Sysfs

LISTEN, ESTABLISHED, CLOSE_WAIT = 10, 1, 8


def series(state: str) -> str:
    return f'node_tcp_connection_states{{state="{state}"}}'


def samples(node: Node) -> list[Sample]:
    return [each for each in tcpstat.collect.collect(node) if isinstance(each, Sample)]


def real_node() -> Node:
    return Node(proc=Procfs(), sys=Sysfs(), filesystems=Filesystems())


@contextlib.contextmanager
def connection(family: socket.AddressFamily, host: str) -> Iterator[tuple[socket.socket, ...]]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server((host, 0), family=family))
        client = stack.enter_context(socket.create_connection(server.getsockname()[:2]))
        accepted = stack.enter_context(server.accept()[0])
        yield server, client, accepted


def asked() -> TcpStates:
    return SockDiag.of(Paths()).tcp_states(Procfs())


def read() -> TcpStates:
    return sockdiag.parse_tcp_states(
        b"".join(Path("/proc/net", name).read_bytes() for name in ("tcp", "tcp6"))
    )


def test_sockets_of_both_families_are_counted_by_state(measure: Callable[..., Any]) -> None:
    found = measure(tcpstat.collect)
    assert found == {
        series("established"): 2,
        series("time_wait"): 1,
        series("listen"): 3,
        series("close_wait"): 1,
        series("rx_queued_bytes"): 0x101,
        series("tx_queued_bytes"): 0x24,
    }


def test_a_machine_without_tcp_has_nothing_to_tell(
    tmp_path: Path, make_node: Callable[..., Node]
) -> None:
    with pytest.raises(NoData):
        list(tcpstat.collect.collect(make_node(tmp_path)))


def test_without_ipv6_the_rest_is_counted(tree: Path, measure: Callable[..., Any]) -> None:
    (tree / "proc/net/tcp6").unlink()
    assert measure(tcpstat.collect, tree)[series("listen")] == 2


def test_lines_of_no_sense_are_left_out() -> None:
    lines = b"heading\n 0: a b\n"
    lines += b" 1: a b zz 0:0 c\n 2: a b 01 00 c\n\n 3: a b 01 01:02 c\n 4: a b FFF 0:0"
    found = sockdiag.parse_tcp_states(lines)
    assert sum(found.counts) == 1
    assert (found.receive_bytes, found.send_bytes) == (2, 1)


def test_states_that_are_not_known_are_one(tree: Path, measure: Callable[..., Any]) -> None:
    (tree / "proc/net/tcp").write_text("".join(f" 0: a b {n} 0:0 c\n" for n in ("00", "0C", "7F")))
    assert measure(tcpstat.collect, tree)[series("unknown")] == 3


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_netlink_sees_what_a_real_connection_is_in(
    family: socket.AddressFamily, host: str
) -> None:
    before = asked()
    with connection(family, host) as (_, client, accepted):
        during = asked()
        assert during.counts[LISTEN] > 0
        assert during.counts[ESTABLISHED] >= 2
        accepted.close()
        assert wait_for(lambda: asked().counts[CLOSE_WAIT] > before.counts[CLOSE_WAIT])
        assert client.fileno() > 0


def wait_for(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.02)
    return False


def test_what_waits_unread_is_counted_in_bytes() -> None:
    with connection(socket.AF_INET, "127.0.0.1") as (_, client, _accepted):
        before = asked().receive_bytes
        client.sendall(b"x" * 54321)
        assert wait_for(lambda: asked().receive_bytes - before >= 54321)


def test_a_listeners_backlog_is_no_bytes() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=4000):
        assert wait_for(lambda: asked().send_bytes == read().send_bytes)


def test_netlink_and_proc_tell_the_same() -> None:
    with connection(socket.AF_INET, "127.0.0.1"), connection(socket.AF_INET6, "::1"):
        assert wait_for(lambda: asked() == read())


@pytest.mark.parametrize("error", [1, 2, 13, 93])
def test_where_netlink_is_refused_proc_is_read_and_netlink_let_be(
    error: int,
) -> None:
    asks = []

    def refuse() -> socket.socket:
        asks.append(1)
        raise OSError(error, "no")

    diag = SockDiag(Path("/proc"), connect=refuse)
    assert sum(diag.tcp_states(Procfs()).counts)
    diag.tcp_states(Procfs())
    assert asks == [1]


def test_a_full_buffer_is_a_failure_and_no_refusal() -> None:
    def full() -> socket.socket:
        raise OSError(105, "No buffer space available")

    with pytest.raises(OSError, match="buffer"):
        SockDiag(Path("/proc"), connect=full).tcp_states(Procfs())


def test_it_is_asked_of_netlink_only_beside_a_real_proc(tree: Path) -> None:
    diag = SockDiag.of(Paths(proc=tree / "proc"))
    assert diag.tcp_states(Procfs(tree / "proc")).counts[LISTEN] == 3


@pytest.mark.slow
def test_many_connections_take_microseconds_each() -> None:
    most = 5000
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=most))
        for _ in range(most):
            stack.enter_context(socket.create_connection(server.getsockname()))
            stack.enter_context(server.accept()[0])
        began = time.process_time()
        found = asked()
        took = time.process_time() - began
    assert found.counts[ESTABLISHED] >= 2 * most
    assert took < sum(found.counts) * 10e-6


@pytest.fixture(scope="module")
def theirs() -> Iterator[str]:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            "/usr/bin/prometheus-node-exporter",
            f"--web.listen-address=127.0.0.1:{port}",
            "--collector.disable-defaults",
            "--collector.tcpstat",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        process.terminate()
        process.wait(5)


def ask(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - our own
        lines = [line for line in reply.read().decode().splitlines() if "tcp_conn" in line]
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {series: float(value) for series, _, value in pairs}


def test_node_exporter_tells_the_same_states(theirs: str) -> None:
    def up() -> bool:
        try:
            return bool(ask(theirs))
        except OSError:
            return False

    def same() -> bool:
        # Their answer is itself a connection; and to us backlogs are no bytes.
        skipped = {series("tx_queued_bytes"), series("established"), series("time_wait")}
        their = {key: value for key, value in ask(theirs).items() if key not in skipped}
        our = {series(s.values[0]): s.value for s in samples(real_node())}
        return their == {key: value for key, value in our.items() if key not in skipped}

    with connection(socket.AF_INET, "127.0.0.1") as (_, client, accepted):
        assert wait_for(up)
        accepted.close()
        assert client
        assert wait_for(same)
