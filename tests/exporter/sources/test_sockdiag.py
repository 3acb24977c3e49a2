"""What netlink may answer: blocks of messages, endings, failures and nonsense."""

import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sockdiag import Listener, SockDiag

LISTEN, ESTABLISHED = 10, 1
CGROUP_ID, SOCKOPT = 21, 22

Peers = list[socket.socket]


def message(
    *, state: int = ESTABLISHED, port: int = 22, peer: int = 0, queues: tuple[int, int] = (0, 0),
    address: bytes = b"\x7f\0\0\1" + bytes(12), family: int = socket.AF_INET,
    attributes: bytes = b"", kind: int = 20,
) -> bytes:  # fmt: skip
    body = struct.pack("=BBBB", family, state, 0, 0) + struct.pack("!HH", port, peer)
    body += address + bytes(16) + bytes(12) + struct.pack("=5I", 0, *queues, 0, 4711) + attributes
    return struct.pack("=IHHII", len(body) + 16, kind, 2, 1, 0) + body


def last(error: int = 0, kind: int = 3, flags: int = 2) -> bytes:
    return struct.pack("=IHHIIi", 20, kind, flags, 1, 0, -error)


def attribute(kind: int, value: bytes) -> bytes:
    return (struct.pack("=HH", len(value) + 4, kind) + value).ljust(len(value) + 7 & ~3, b"\0")


@pytest.fixture
def peers() -> Peers:
    return []


@pytest.fixture
def answering(peers: Peers) -> Callable[..., SockDiag]:
    """Make one that gets these blocks, for each question anew."""

    def make(*blocks: bytes) -> SockDiag:
        def connect() -> socket.socket:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            peers.append(theirs)
            for block in blocks:
                theirs.send(block)
            return ours

        return SockDiag(Path("/proc"), connect=connect)

    return make


@pytest.fixture(autouse=True)
def _close(peers: Peers) -> object:
    yield
    for each in peers:
        each.close()


def test_messages_of_several_lengths_are_counted(answering: Callable[..., SockDiag]) -> None:
    odd = message(queues=(3, 4), attributes=attribute(SOCKOPT, b"\0\0\0"))
    block = odd + message(state=LISTEN, queues=(9, 128)) + message(queues=(10, 20))
    found = answering(block, odd, last()).tcp_states(Procfs())
    # The question is put for either family.
    assert (found.counts[ESTABLISHED], found.counts[LISTEN]) == (6, 2)
    assert (found.receive_bytes, found.send_bytes) == (32, 56)


@pytest.mark.parametrize("flags", [0x2, 0x12])
def test_the_end_may_come_behind_other_messages(
    answering: Callable[..., SockDiag], flags: int
) -> None:
    diag = answering(message() + message() + last(flags=flags))
    assert diag.tcp_states(Procfs()).counts[ESTABLISHED] == 4


@pytest.mark.parametrize("kind", [2, 3])
@pytest.mark.parametrize("error", [1, 2])
def test_a_refusal_in_an_answer_makes_it_read_proc(
    answering: Callable[..., SockDiag], peers: Peers, kind: int, error: int
) -> None:
    diag = answering(last(error, kind))
    with socket.create_server(("127.0.0.1", 0)):
        for _ in range(2):
            assert diag.tcp_states(Procfs()).counts[LISTEN] > 0
    assert len(peers) == 1


def test_another_failure_is_one(answering: Callable[..., SockDiag]) -> None:
    with pytest.raises(OSError, match="Cannot allocate"):
        answering(last(12)).tcp_states(Procfs())


def test_messages_of_another_kind_are_passed_over(answering: Callable[..., SockDiag]) -> None:
    block = message(kind=1) + message()
    assert sum(answering(block, last()).tcp_states(Procfs()).counts) == 2
    assert len(answering(block, last()).listeners(Procfs())) == 4


@pytest.mark.parametrize("cut", [16, 40, 79])
def test_a_message_that_is_cut_short_is_left_out(
    answering: Callable[..., SockDiag], cut: int
) -> None:
    block = message() + message()[:cut]
    assert sum(answering(block, last()).tcp_states(Procfs()).counts) == 2


def test_a_message_without_a_length_ends_its_block(answering: Callable[..., SockDiag]) -> None:
    block = bytes(4) + message()[4:]
    assert sum(answering(block * 3, last()).tcp_states(Procfs()).counts) == 2
    assert len(answering(block * 3, last()).listeners(Procfs())) == 4


def test_a_listener_has_its_address_and_its_control_group(
    answering: Callable[..., SockDiag],
) -> None:
    group = attribute(SOCKOPT, b"\0\0") + attribute(CGROUP_ID, struct.pack("=Q", 1 << 40))
    six = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    block = message(attributes=group) + message(address=six, family=socket.AF_INET6, port=443)
    found = answering(block, last()).listeners(Procfs())
    assert found[:2] == [
        Listener("tcp", "127.0.0.1", 22, 4711, 1 << 40),
        Listener("tcp", "2001:db8::1", 443, 4711, 0),
    ]


def test_sockets_with_a_peer_or_without_a_port_do_not_listen(
    answering: Callable[..., SockDiag],
) -> None:
    block = message(peer=53) + message(port=0)
    assert answering(block, last()).listeners(Procfs()) == []


@pytest.mark.parametrize("attributes", [b"\0\0\0\0", b"\x05\0", struct.pack("=HH", 12, CGROUP_ID)])
def test_attributes_of_no_sense_name_no_control_group(
    answering: Callable[..., SockDiag], attributes: bytes
) -> None:
    found = answering(message(attributes=attributes), last()).listeners(Procfs())
    assert [each.cgroup for each in found] == [0] * 4
