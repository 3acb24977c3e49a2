"""Who listens: the fixtures, and real sockets of real processes."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from narthex_exporter.collectors import ports
from narthex_exporter.collectors.spec import Node
from narthex_exporter.sources import sockdiag
from narthex_exporter.sources.place import Paths, Sources
from narthex_exporter.sources.ports import Port, PortWatch, ephemeral_ports, unix_listeners
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sockdiag import SockDiag

LISTEN, CLOSE = 10, 7
# Prints where it listens, then waits until its input ends.
LISTENS = (
    "import socket, sys\n{before}\ns = {socket}\nprint(s.getsockname()[1], flush=True)\n{after}"
)
TCP = "socket.create_server(('127.0.0.1', 0))"
WAITS = "sys.stdin.read()"
NAMED = "import ctypes; ctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0)"


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> PortWatch:
    return PortWatch(Paths(), SockDiag(Path("/proc")), now=clock)


@contextlib.contextmanager
def child(
    *, listens: str = TCP, before: str = "", after: str = WAITS, within: tuple[str, ...] = ()
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a process that listens; gives it and its port."""
    code = LISTENS.format(before=before, socket=listens, after=after)
    with subprocess.Popen(
        [*within, sys.executable, "-ISc", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def seen(watch: PortWatch, port: int, protocol: str = "tcp") -> list[Port]:
    found = watch.look(Procfs()).ports
    return [each for each in found if (each.protocol, each.port) == (protocol, port)]


def our_name() -> str:
    return Path("/proc/self/comm").read_text().strip()


def info(protocol: str, address: str, port: int, process: str = "") -> str:
    place = f'address="{address}",port="{port}",process="{process}"'
    labels = f'protocol="{protocol}",{place},unit="",container=""'
    return f"narthex_listening_port_info{{{labels}}}"


def test_the_fixtures_listeners_are_told_by_family_and_protocol(
    measure: Callable[..., Any],
) -> None:
    found = measure(ports.collect)
    assert {key for key in found if "_info" in key} == {
        info("tcp", "0.0.0.0", 22),  # noqa: S104 - a label
        info("tcp", "127.0.0.1", 5432),
        info("tcp", "::", 22),
        info("udp", "0.0.0.0", 68),  # noqa: S104
        info("udp", "127.0.0.1", 323),
        info("udp", "127.0.0.1", 803),
        info("udp", "::", 5353),
        info("udp", "::1", 323),
    }
    assert found['narthex_listening_ports{protocol="tcp"}'] == 3
    assert found['narthex_listening_ports{protocol="udp"}'] == 5
    assert found["narthex_listening_sockets_unattributed"] == 8
    assert found["narthex_listening_unix_sockets"] == 2


def test_processes_can_be_left_out_and_counts_stay(
    watch: PortWatch, measure: Callable[..., Any]
) -> None:
    exclude = {ports.PROCESSES.exclude: re.compile(f"^{re.escape(our_name())}$")}
    with socket.create_server(("127.0.0.1", 0)) as server:
        sources = Sources({PortWatch: watch})
        without = measure(ports.collect, settings=exclude, sources=sources)
        found = measure(ports.collect, sources=sources)
        ours = f'port="{server.getsockname()[1]}"'
    assert len([key for key in found if ours in key]) == 2
    assert not [key for key in without if ours in key]
    assert without['narthex_listening_ports{protocol="tcp"}'] > 0


def test_an_empty_machine_has_nobody_listening(
    tmp_path: Path, measure: Callable[..., Any]
) -> None:
    assert measure(ports.collect, tmp_path) == {
        'narthex_listening_ports{protocol="tcp"}': 0,
        'narthex_listening_ports{protocol="udp"}': 0,
        "narthex_listening_sockets_unattributed": 0,
    }


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_real_listener_is_told_with_its_process(
    watch: PortWatch, family: socket.AddressFamily, host: str
) -> None:
    with socket.create_server((host, 0), family=family) as server:
        (found,) = seen(watch, server.getsockname()[1])
    assert (found.address, found.process) == (host, our_name())


def test_a_connection_is_no_listener(watch: PortWatch) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert not seen(watch, client.getsockname()[1])


def test_a_udp_server_is_told_at_once(watch: PortWatch) -> None:
    lowest, _ = ephemeral_ports(Procfs())
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", lowest - 1))
        assert len(seen(watch, lowest - 1, "udp")) == 1


def test_a_udp_socket_on_a_clients_port_is_told_once_it_lasts(
    watch: PortWatch, clock: Clock
) -> None:
    watch.look(Procfs())
    with socket.socket(type=socket.SOCK_DGRAM) as waiting:
        waiting.bind(("127.0.0.1", 0))
        port = waiting.getsockname()[1]
        assert not seen(watch, port, "udp")
        began = clock.time
        clock.time += 30
        (found,) = seen(watch, port, "udp")
        assert found.first_seen == began
        waiting.connect(("127.0.0.1", 9))
        assert not seen(watch, port, "udp")


def test_a_udp_socket_of_before_the_first_look_is_not_new(watch: PortWatch) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as waiting:
        waiting.bind(("127.0.0.1", 0))
        watch.look(Procfs())
        (found,) = seen(watch, waiting.getsockname()[1], "udp")
    assert found.first_seen == 0


def test_who_listens_since_the_first_look_is_new_and_stays_so(
    watch: PortWatch, clock: Clock
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as old:
        assert seen(watch, old.getsockname()[1])[0].first_seen == 0
        with socket.create_server(("127.0.0.1", 0)) as new:
            began = clock.time
            for _ in range(3):
                assert seen(watch, new.getsockname()[1])[0].first_seen == began
                clock.time += 30
        assert seen(watch, old.getsockname()[1])[0].first_seen == 0


def test_a_service_that_starts_again_is_not_new_within_a_day(
    watch: PortWatch, clock: Clock
) -> None:
    with child() as (_, port):
        began = seen(watch, port)[0].first_seen
    listens = f"socket.create_server(('127.0.0.1', {port}))"
    clock.time += 3600
    assert not seen(watch, port)
    with child(listens=listens):
        assert seen(watch, port)[0].first_seen == began == 0
    clock.time += 86401
    watch.look(Procfs())
    with child(listens=listens):
        assert seen(watch, port)[0].first_seen == clock.time


def test_a_process_that_ended_listens_no_more(watch: PortWatch) -> None:
    with child() as (process, port):
        assert len(seen(watch, port)) == 1
        process.kill()
        process.wait()
        assert not seen(watch, port)
    assert not watch._holders.keys() & {0}


def test_a_socket_that_its_first_holder_left_is_found_with_the_next(watch: PortWatch) -> None:
    before = NAMED.format(name=b"parent")
    heir = f"import os\nif os.fork(): sys.stdin.read(); os._exit(0)\n{NAMED.format(name=b'heir')}"
    after = f"{heir}\nimport time\ntime.sleep(20)"
    with child(before=before, after=after) as (process, port):
        (first,) = seen(watch, port)
        deadline = time.monotonic() + 10
        while not (heirs := psutil.Process(process.pid).children()):
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.kill()
        process.wait()
        (second,) = seen(watch, port)
        heirs[0].kill()
    assert (first.process, second.process) == ("parent", "heir")


def test_a_process_that_takes_another_name_is_told_by_it(watch: PortWatch) -> None:
    after = f"sys.stdin.readline()\n{NAMED.format(name=b'renamed')}\nprint(0, flush=True)\n{WAITS}"
    with child(after=after) as (process, port):
        (first,) = seen(watch, port)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        (second,) = seen(watch, port)
    assert (first.process.startswith("python"), second.process) == (True, "renamed")


def test_hostile_names_pass_through_escaped(
    measure: Callable[..., Any], make_node: Callable[..., Node], watch: PortWatch
) -> None:
    before = NAMED.format(name=b'a"\n\\\xff{}')
    with child(before=before) as (_, port):
        assert [each.process for each in seen(watch, port)] == ['a"\n\\\ufffd{}']
        found = measure(ports.collect, sources=Sources({PortWatch: watch}))
    assert info("tcp", "127.0.0.1", port, r"a\"\n\\" + "\ufffd{}") in found


def test_sockets_that_share_a_port_are_one(watch: PortWatch) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as one:
        address = one.getsockname()
        with socket.create_server(address, reuse_port=True):
            assert len(seen(watch, address[1])) == 1


def test_what_listens_in_another_network_namespace_is_not_ours(watch: PortWatch) -> None:
    with child(listens="socket.create_server(('', 0))", within=("unshare", "--net")) as (_, port):
        others = [each for each in seen(watch, port) if each.address == "0.0.0.0"]  # noqa: S104
    assert not others


def test_thousands_of_listeners_are_counted_and_the_first_ones_told(
    make_node: Callable[..., Node], measure: Callable[..., Any], watch: PortWatch
) -> None:
    before = (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (6000, 6000))\n"
        "many = [socket.create_server((f'127.0.{n // 200}.{n % 200 + 1}', 0))"
        " for n in range(5000)]"
    )
    with child(before=before) as (_, _):
        found = measure(ports.collect, sources=Sources({PortWatch: watch}))
        began = time.process_time()
        look = watch.look(Procfs())
        took = time.process_time() - began
    assert found['narthex_listening_ports{protocol="tcp"}'] > 5000
    assert sum("_info" in key for key in found) == 200
    assert len(look.ports) > 5000
    assert took < 2


def test_a_holder_is_looked_for_once(clock: Clock) -> None:
    watch = PortWatch(Paths(), SockDiag(Path("/proc")), now=clock)
    with socket.create_server(("127.0.0.1", 0)) as server:
        inode = os.fstat(server.fileno()).st_ino
        watch.look(Procfs())
        holder = watch._holders[inode]
        watch.look(Procfs())
        assert watch._holders[inode] is holder


def test_sockets_that_nobody_holds_are_looked_for_again_now_and_then(
    tmp_path: Path, clock: Clock
) -> None:
    watch = PortWatch(Paths(proc=tmp_path), SockDiag(Path("/proc")), now=clock)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port, inode = server.getsockname()[1], os.fstat(server.fileno()).st_ino
        assert seen(watch, port)[0].process == ""
        folder = tmp_path / "77/fd"
        folder.mkdir(parents=True)
        (folder / "5").symlink_to(f"socket:[{inode}]")
        (tmp_path / "77/comm").write_text("late\n")
        (tmp_path / "77/cgroup").write_text("0::/system.slice/late.service\n")
        found = [seen(watch, port)[0] for _ in range(10)]
    assert [each.process for each in found] == [""] * 9 + ["late"]
    assert found[-1].first_seen == 0


GROUP = next(
    (path for path in map(Path, ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"))
     if os.access(path / "cgroup.procs", os.W_OK)),
    None,
)  # fmt: skip


@pytest.mark.skipif(GROUP is None, reason="needs root and version 2 of control groups")
def test_without_the_right_to_look_units_are_known_by_control_group(
    tmp_path: Path, clock: Clock
) -> None:
    assert GROUP is not None
    container = "c0ffee" * 10 + "beef"
    blind = PortWatch(Paths(proc=tmp_path), SockDiag(Path("/proc")), now=clock)
    slice_ = GROUP / f"narthextest{os.getpid()}.slice"
    unit = slice_ / "mine.service"
    group = unit / f"docker-{container}.scope"
    group.mkdir(parents=True)
    try:
        before = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')"
        with child(before=before) as (_, port):
            look = blind.look(Procfs())
        (found,) = [each for each in look.ports if each.port == port]
    finally:
        for folder in (group, unit, slice_):
            folder.rmdir()
    assert (found.process, found.unit, found.container) == ("", "mine.service", container[:12])
    assert look.unseen >= 1


def test_unix_sockets_with_hostile_names_do_not_spoil_the_count(tree: Path) -> None:
    with (tree / "proc/net/unix").open("a") as file:
        file.write("0: 2 0 00010000 0001 01 7 /tmp/a\nb c d zz\n\n0: 2 0 00010000 0001 01 8 @x\n")
    assert unix_listeners(Procfs(tree / "proc")) == 4


def test_a_range_of_ports_of_no_sense_is_the_kernels_usual_one(tmp_path: Path) -> None:
    assert ephemeral_ports(Procfs(tmp_path)) == (32768, 60999)


def test_proc_and_netlink_list_the_same_listeners() -> None:
    diag, proc = SockDiag(Path("/proc")), Procfs()
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as two,
        socket.socket(type=socket.SOCK_DGRAM) as three,
    ):
        three.bind(("127.0.0.3", 0))
        ours = {each.getsockname()[1] for each in (one, two, three)}
        asked = {each[:4] for each in diag.listeners(proc) if each.port in ours}
        diag._refused |= {"tcp", "udp"}
        read = {each[:4] for each in diag.listeners(proc) if each.port in ours}
    assert asked == read
    assert len(asked) == 3


@pytest.mark.parametrize(
    "line",
    [
        b"", b"0: 0100007F:0016", b" 0: zz:0016 00000000:0000 0A 0:0 0:0 0 0 0 1 1",
        b" 0: 01007F:0016 00000000:0000 0A 0:0 0:0 0 0 0 1 1",
        b" 0: 0100007F0000:0016 00000000:0000 0A 0:0 0:0 0 0 0 1 1",
        b" 0: 0100007F:0016 00000000:0000 0A 0:0 0:0 0 0 0 x 1",
        b" 0: 0100007F:0000 00000000:0000 0A 0:0 0:0 0 0 0 1 1",
        b" 0: 1FFFFFFFF:0016 00000000:0000 0A 0:0 0:0 0 0 0 1 1",
    ],
)  # fmt: skip
def test_lines_that_are_no_listeners_are_left_out(line: bytes) -> None:
    assert sockdiag.parse_listeners("tcp", LISTEN, line) == []


@pytest.mark.parametrize("cut", [0, 16, 60, 87])
def test_messages_that_are_cut_short_are_left_out(cut: int) -> None:
    block = sockdiag._FULL.pack(88, 20, 2, LISTEN, b"\0\x16", b"\0\0", bytes(16), 7)
    assert len(sockdiag.parse_messages("tcp", block)) == 1
    assert sockdiag.parse_messages("tcp", block[:cut]) == []


def test_a_message_without_length_ends_the_block() -> None:
    block = sockdiag._FULL.pack(0, 20, 2, LISTEN, b"\0\x16", b"\0\0", bytes(16), 7)
    assert len(sockdiag.parse_messages("tcp", block * 3)) == 1
