"""Terminals into containers of a real Docker engine: SECURITY.md 31 and 32 at the node."""

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.exporter.actor.conftest import Enrolled, Rig, running
from typing_extensions import override
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, TextMessage

from narthex_exporter.actor.node import Config
from narthex_exporter.actor.policy import OFF
from narthex_exporter.actor.terminal import Bounds
from narthex_exporter.contract.wire import encode_params
from narthex_exporter.transport.slots import Slots
from realdocker import IMAGE, engine
from realdocker import Engine as Docker
from wsclient import Client as Talk

POLICY = """\
version: 1
mode: manage
danger: {container: disruptive}
"""


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with engine(tmp_path_factory.mktemp("docker")) as one:
        run = ("run", "--detach", "--network=none", "--init")
        one.run(*run, "--name=web", IMAGE, "sleep", "1000")
        one.run(*run, "--name=host", "--pid=host", "--volume=/:/node:ro", IMAGE, "sleep", "1000")
        one.run("create", "--name=still", "--network=none", IMAGE, "sleep", "1000")
        yield one


class Here(Enrolled):
    engine: Path

    @override
    def layout(self) -> Config:
        return replace(super().layout(), docker_socket=self.engine)


@dataclass
class Desk:
    """Opens terminals, and knows what the containers run."""

    docker: Docker
    rig: Rig
    stack: contextlib.ExitStack

    def ask(
        self, *, sub: str = "user:1", act: str = "container.exec", **params: Any
    ) -> tuple[Talk, Event]:
        target = f"/api/v1/terminal?params={encode_params({'container': 'web', **params})}"
        claims = self.rig.client.claims("GET", target, b"", act=act, sub=sub, rsn="a test")
        ticket = self.rig.client.sign(claims)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.stack.enter_context(contextlib.closing(sock))
        sock.settimeout(20)
        sock.connect(str(self.rig.enrolled.config.socket))
        talk = Talk(sock)
        return talk, talk.ask(target, extra_headers=[(b"Narthex-Ticket", ticket.encode())])

    def open(self, **params: Any) -> Talk:
        talk, answer = self.ask(**params)
        assert isinstance(answer, AcceptConnection), talk.refusal(answer)
        return talk

    def refused(self, **params: Any) -> tuple[int, str]:
        talk, answer = self.ask(**params)
        return talk.refusal(answer)

    def processes(self, word: str = "") -> list[str]:
        lines = self.docker.run("top", "web", "-eo", "pid,args").splitlines()[1:]
        return [line for line in lines if word in line]

    def rows(self, event: str) -> list[dict[str, Any]]:
        return [row for row in self.rig.audit_rows if row["event"] == event]

    def only_the_container_s_own_is_left(self, *, seconds: float = 10.0) -> bool:
        deadline = time.monotonic() + seconds
        while len(self.processes()) > 2:  # its init and its sleep
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def bound(self, **bounds: Any) -> None:
        terminals = _terminals(self.rig)
        terminals.bounds = replace(terminals.bounds, **bounds)
        terminals._slots = Slots(terminals.bounds.most, terminals.bounds.most_each)


def _terminals(rig: Rig) -> Any:
    (routes,) = rig.actor.wsgi.before_request_funcs[None]  # type: ignore[attr-defined]
    return routes.__self__.gate.terminals


@pytest.fixture
def desk(docker: Docker, tmp_path: Path) -> Iterator[Desk]:
    Here.engine = docker.socket
    enrolled = Here(tmp_path / "node")
    enrolled.write_policy(POLICY)
    with contextlib.ExitStack() as stack:
        rig = stack.enter_context(running(enrolled))
        with contextlib.ExitStack() as sockets:
            one = Desk(docker, rig, sockets)
            yield one
        assert one.only_the_container_s_own_is_left()


def typed(talk: Talk, text: str) -> None:
    talk.send(BytesMessage(data=text.encode()))


def closed(talk: Talk) -> CloseConnection:
    found: Event | bytes | str = b""
    while not isinstance(found, CloseConnection):
        found = talk.message()
    return found


def test_what_is_typed_runs_in_the_container_and_is_written_down(desk: Desk) -> None:
    talk = desk.open(columns=101, rows=31)
    typed(talk, "busybox stty size; echo $TERM $((6*7)); cat /proc/self/cgroup | busybox wc -l\n")
    out = talk.output(b"xterm-256color 42")
    assert b"31 101" in out
    typed(talk, "busybox hostname; exit 3\n")
    end = closed(talk)
    assert (end.code, end.reason) == (1000, "the command has ended")
    (opened,) = desk.rows("terminal.opened")
    assert (opened["sub"], opened["container"], opened["command"], opened["reason"]) == (
        "user:1", "web", ["/bin/sh"], "a test",
    )  # fmt: skip
    deadline = time.monotonic() + 5
    while not desk.rows("terminal.closed"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (row,) = desk.rows("terminal.closed")
    assert row["op"] == opened["op"]
    assert row["why"] == "the command has ended"
    assert row["bytes_in"] > 80
    assert row["bytes_out"] > row["bytes_in"]
    assert not row["left_running"]


def test_the_terminal_follows_the_window(desk: Desk) -> None:
    talk = desk.open()
    typed(talk, "busybox stty size\n")
    talk.output(b"24 80")
    for columns in (90, 95, 132):
        talk.send(TextMessage(data=f'{{"columns": {columns}, "rows": 50}}'))
    time.sleep(0.5)
    typed(talk, "busybox stty size\n")
    talk.output(b"50 132")


@pytest.mark.parametrize(
    "command",
    [
        "sleep 911",
        "sleep 911 & sleep 911 & wait",
        "trap '' HUP TERM; sleep 911 & while :; do sleep 1; done",
        "busybox nohup sleep 911 & sleep 911",
    ],
)
def test_32_closing_ends_what_was_started(desk: Desk, command: str) -> None:
    talk = desk.open()
    typed(talk, f"{command}\n")
    deadline = time.monotonic() + 5
    while not desk.processes("sleep 911") and "while" not in command:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.3)
    talk.sock.close()
    assert desk.only_the_container_s_own_is_left(seconds=10)
    deadline = time.monotonic() + 5
    while not desk.rows("terminal.closed"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert desk.rows("terminal.closed")[0]["bytes_in"] > 0


def test_32_a_peer_that_is_gone_without_a_word_is_noticed(desk: Desk) -> None:
    talk = desk.open()
    typed(talk, "sleep 911\n")
    talk.sock.shutdown(socket.SHUT_RDWR)
    assert desk.only_the_container_s_own_is_left(seconds=10)


def test_32_idle_and_old_terminals_close(desk: Desk) -> None:
    desk.bound(idle_seconds=1.0)
    idle = desk.open()
    typed(idle, "while :; do echo busy; sleep 1; done\n")  # output alone is not use
    end = closed(idle)
    assert (end.code, end.reason) == (1008, "nothing was typed for too long")
    desk.bound(idle_seconds=600.0, life_seconds=1.0)
    old = desk.open()
    assert closed(old).reason == "it was open for too long"


def test_32_a_policy_that_forbids_it_closes_what_is_open(desk: Desk) -> None:
    desk.bound(check_seconds=0.2)
    talk = desk.open()
    desk.rig.actor.engine.policy = OFF
    assert closed(talk).reason == "the node's policy forbids it now"


def test_32_an_actor_that_stops_leaves_nothing_running(docker: Docker, tmp_path: Path) -> None:
    Here.engine = docker.socket
    enrolled = Here(tmp_path / "node")
    enrolled.write_policy(POLICY)
    with contextlib.ExitStack() as sockets:
        with running(enrolled) as rig:
            desk = Desk(docker, rig, sockets)
            talk = desk.open()
            typed(talk, "trap '' HUP; echo $((6*7)); sleep 911\n")
            talk.output(b"42")
        assert desk.only_the_container_s_own_is_left(seconds=1)
        assert closed(talk).code == 1001


def test_31_without_its_ticket_no_terminal_opens(desk: Desk) -> None:
    before = desk.processes()
    assert desk.refused(act="process.top") == (401, "ticket-invalid")
    assert desk.refused(act="container.restart") == (401, "ticket-invalid")
    assert desk.refused(container="nowhere") == (409, "refused")
    assert desk.refused(container="still") == (409, "refused")
    assert desk.refused(container="../web") == (422, "params-invalid")
    assert desk.refused(user="root") == (422, "params-invalid")
    assert desk.processes() == before
    assert desk.rows("terminal.opened") == []


@pytest.mark.parametrize(
    "policy",
    [
        "version: 1\nmode: read-only\n",
        "version: 1\nmode: manage\ndanger: {service: disruptive}\n",
        "version: 1\nmode: manage\ndanger: {container: reversible}\n",
    ],
)
def test_31_what_the_policy_forbids_is_refused_and_written_down(desk: Desk, policy: str) -> None:
    desk.rig.enrolled.write_policy(policy)
    desk.rig.actor.reload()
    assert desk.refused() == (403, "policy-refused")
    assert desk.rows("request.refused")[-1]["act"] == "container.exec"


def test_a_container_that_has_the_node_is_root_and_must_be_named_so(desk: Desk) -> None:
    assert desk.refused(container="host") == (403, "policy-refused")
    (row,) = desk.rows("request.refused")
    assert "it sees the node's processes, it has the node's files" in row["detail"]
    desk.rig.enrolled.write_policy(f"{POLICY}root_equivalent: [container.exec]\n")
    desk.rig.actor.reload()
    desk.open(container="host")


def test_31_only_so_many_are_open_on_a_node_and_by_one_user(desk: Desk) -> None:
    desk.bound(most=3, most_each=2)
    talks = [desk.open() for _ in range(2)]
    assert desk.refused() == (429, "rate-limited")
    talks.append(desk.open(sub="user:2"))
    assert desk.refused(sub="user:3") == (429, "rate-limited")
    typed(talks[0], "exit\n")
    closed(talks[0])
    deadline = time.monotonic() + 8
    while not desk.rows("terminal.closed"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.2)  # the goodbye
    desk.open()


def test_what_floods_its_screen_waits_for_its_reader(desk: Desk) -> None:
    talk = desk.open(command=["/bin/sh", "-c", "while :; do cat /bin/busybox; done"])
    time.sleep(1.5)
    began = time.monotonic()
    other = desk.open(sub="user:2")
    typed(other, "echo $((40+2))\n")
    other.output(b"42")
    assert time.monotonic() - began < 3
    size = 0
    while size < 4 << 20:
        piece = talk.message()
        assert isinstance(piece, bytes)
        size += len(piece)


def test_a_command_that_does_not_exist_is_told(desk: Desk) -> None:
    talk, answer = desk.ask(command=["/bin/nothing"])
    if isinstance(answer, AcceptConnection):
        assert b"no such file" in talk.output(b"no such file").lower()
        assert closed(talk).code == 1000
    else:
        assert talk.refusal(answer)[0] == 409


def test_a_hung_engine_costs_only_its_asker(desk: Desk) -> None:
    desk.docker.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert desk.refused() == (503, "unavailable")
        assert time.monotonic() - began < 8
        assert desk.rig.client.raw("GET", "/api/v1/nonce").status == 204
    finally:
        desk.docker.process.send_signal(signal.SIGCONT)


def test_the_bounds_are_those_that_security_asks_for() -> None:
    bounds = Bounds()
    assert (bounds.most, bounds.most_each) == (8, 4)
    assert (bounds.idle_seconds, bounds.life_seconds) == (600, 28_800)
    assert bounds.check_seconds <= 15
    assert bounds.grace_seconds == 5
