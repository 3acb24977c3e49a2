"""Live streams of a real actor: tickets, what is told, and how a stream ends."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.exporter.actions.conftest import PretendedContainers
from tests.exporter.actor.conftest import Client, Enrolled, Rig, Sleeper, running, started
from typing_extensions import override
from wsproto.events import AcceptConnection, CloseConnection, Event

from narthex_exporter.actor import streams
from narthex_exporter.actor.facts import NodeFacts
from narthex_exporter.actor.policy import OFF
from narthex_exporter.contract.containerfacts import ContainerFact, LogFact
from narthex_exporter.contract.facts import UnitFact
from narthex_exporter.contract.wire import encode_params
from narthex_exporter.follows import service
from narthex_exporter.follows.container import LogPart
from narthex_exporter.follows.process import TopChange
from narthex_exporter.follows.service import JournalPart
from narthex_exporter.sources.systemd import Units
from wsclient import Client as Talk


@dataclass
class Ear:
    """Opens streams with tickets; ``altered`` changes what a ticket says."""

    client: Client
    stack: contextlib.ExitStack
    talks: list[Talk] = field(default_factory=list)

    def target(self, name: str, params: dict[str, Any] | None) -> str:
        query = f"?params={encode_params(params)}" if params is not None else ""
        return f"/api/v1/follow/{name}{query}"

    def ask(
        self, name: str, params: dict[str, Any] | None = None, *, ticket: str = "", **altered: Any
    ) -> tuple[Talk, Event]:
        target = self.target(name, params)
        if not ticket:
            ticket = self.ticket(target, **{"act": name, **altered})
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.stack.enter_context(contextlib.closing(sock))
        sock.settimeout(15)
        sock.connect(str(self.client.enrolled.config.socket))
        talk = Talk(sock)
        return talk, talk.ask(target, extra_headers=[(b"Narthex-Ticket", ticket.encode())])

    def ticket(self, target: str, *, act: str, **altered: Any) -> str:
        return self.client.sign(self.client.claims("GET", target, b"", act=act, **altered))

    def open(self, name: str, **params: Any) -> Talk:
        talk, answer = self.ask(name, params)
        assert isinstance(answer, AcceptConnection), talk.refusal(answer)
        return talk

    def refused(self, name: str, params: dict[str, Any] | None = None, **more: Any) -> Any:
        talk, answer = self.ask(name, params, **more)
        return talk.refusal(answer)


@pytest.fixture
def ear(rig: Rig) -> Iterator[Ear]:
    with contextlib.ExitStack() as stack:
        yield Ear(rig.client, stack)


def look(talk: Talk) -> tuple[dict[str, Any], list[str]]:
    """Read one whole look at the processes: rows by key, and the order."""
    rows: dict[str, Any] = {}
    while True:
        part = TopChange.model_validate(talk.json()["data"])
        rows |= {f"{one.pid}-{one.start_ticks}": one for one in part.rows}
        if part.order is not None:
            return rows, list(part.order)


def test_the_busiest_processes_are_told_and_then_only_what_changed(
    ear: Ear, sleeper: Sleeper
) -> None:
    with started("sh", "-c", "while :; do :; done") as busy:
        talk = ear.open("process.top", limit=300)
        rows, order = look(talk)
        key, idle = f"{busy.pid}-{busy.start_ticks}", f"{sleeper.pid}-{sleeper.start_ticks}"
        assert {key, idle} <= set(rows) == set(order)
        changed, _ = look(talk)
        assert changed[key].cpu_ratio > 0.1
        assert idle not in changed
    assert key not in look(talk)[1]


def test_a_stream_is_announced_in_the_manifest(rig: Rig) -> None:
    manifest = rig.client.call("GET", "/api/v1/manifest", act="manifest").json()
    told = {one["name"]: one for one in manifest["follows"]}
    assert told["process.top"]["permission"] == "query:process.top"
    assert told["process.top"]["available"]
    assert "limit" in told["process.top"]["params"]["properties"]


@pytest.mark.parametrize(
    ("altered", "reason"),
    [
        ({"act": "process.list"}, "act"),
        ({"aud": "node:other"}, "invalid"),
        ({"htm": "POST"}, "target"),
        ({"htu": "/api/v1/follow/process.top"}, "target"),
        ({"ph": "0" * 64}, "body"),
        ({"nonce": "spent"}, "nonce"),
        ({"exp": int(time.time()) - 300}, "expired"),
    ],
)
def test_without_its_own_ticket_nothing_is_told(
    ear: Ear, rig: Rig, altered: dict[str, Any], reason: str
) -> None:
    status, kind = ear.refused("process.top", {"limit": 5}, **altered)
    assert status == 401
    assert kind in {"ticket-invalid", "ticket-nonce"}
    assert rig.audit_rows[-1]["reason"] == reason


def test_a_ticket_opens_one_stream_once(ear: Ear) -> None:
    ticket = ear.ticket(ear.target("process.top", {}), act="process.top")
    _, first = ear.ask("process.top", {}, ticket=ticket)
    assert isinstance(first, AcceptConnection)
    assert ear.refused("process.top", {}, ticket=ticket) == (401, "ticket-nonce")


def test_what_cannot_be_followed_is_told_as_a_problem(ear: Ear) -> None:
    assert ear.refused("process.list") == (404, "unknown-follow")
    assert ear.refused("process.top", {"limit": 0}) == (422, "params-invalid")
    assert ear.refused("process.top", {"shell": "x"}) == (422, "params-invalid")
    assert ear.refused("service.journal", {"unit": "x.service"}) == (409, "not-available")


def test_parameters_must_be_what_they_claim(ear: Ear, rig: Rig) -> None:
    for query in ("?params=!!", "?params=e30&params=e30", "?params=" + "A" * 901, "?params=e3"):
        target = f"/api/v1/follow/process.top{query}"
        ticket = rig.client.sign(rig.client.claims("GET", target, b"", act="process.top"))
        reply = rig.client.raw("GET", target, b"", {"Narthex-Ticket": ticket})
        assert (reply.status, reply.json()["type"]) == (400, "body-invalid"), query


def test_a_plain_request_is_told_to_upgrade(rig: Rig) -> None:
    reply = rig.client.call("GET", "/api/v1/follow/process.top", act="process.top")
    assert (reply.status, reply.json()["type"]) == (426, "upgrade-required")


def test_who_speaks_where_one_only_listens_is_cut(ear: Ear) -> None:
    talk = ear.open("process.top", limit=1)
    talk.sock.sendall(b"\x81\x82\0\0\0\0hi")
    assert talk.close_code() == 1008


def test_only_so_many_streams_are_told_at_once(
    ear: Ear, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MOST_STREAMS_EACH", 2)
    with contextlib.ExitStack() as stack, running(_other(rig.enrolled)) as other:
        ears = Ear(other.client, stack)
        for _ in range(2):
            look(ears.open("process.top", limit=1))
        third = ears.open("process.top", limit=1)
        assert third.json()["problem"]["type"] == "rate-limited"
        assert third.close_code() == 1008


def _other(enrolled: Enrolled) -> Enrolled:
    return Enrolled(enrolled.home.parent / "other")


def test_a_policy_that_turns_off_ends_what_is_open(
    ear: Ear, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CHECK_SECONDS", 0.2)
    talk = ear.open("process.top", limit=1)
    look(talk)
    rig.actor.engine.policy = OFF
    problem: dict[str, Any] = {}
    while not problem:
        problem = talk.json().get("problem", {})
    assert problem["type"] == "policy-refused"
    assert talk.close_code() == 1008


def test_an_actor_that_stops_says_so(enrolled: Enrolled) -> None:
    with contextlib.ExitStack() as stack:
        with running(enrolled) as rig:
            talk = Ear(rig.client, stack).open("process.top", limit=1)
            look(talk)
            began = time.monotonic()
        assert time.monotonic() - began < 4
        last: Any = None
        while not isinstance(last, CloseConnection):
            last = talk.message()
        assert last.code == 1001


JOURNALCTL = """\
#!/bin/sh
# As journalctl writes, for a unit that never tires.
case "$*" in *--after-cursor=broken*) echo "Failed to seek" >&2; exit 1;; esac
echo $$ > {pid}
echo "$@" > {argv}
i=0
while [ $i -lt {count} ]; do
  echo '{{"__CURSOR":"s=1;i='$i'","__REALTIME_TIMESTAMP":"1764000000000000","PRIORITY":"3",\
"SYSLOG_IDENTIFIER":"web","_PID":"77","MESSAGE":"line '$i' <b>\\u001b[31m"}}'
  i=$((i+1))
done
echo 'not JSON'
echo '{{"__CURSOR":"s=1;i=last","__REALTIME_TIMESTAMP":"1764000000000000","MESSAGE":[104,255]}}'
exec sleep 300
"""


@dataclass
class Unit:
    """A unit that a stand-in for journalctl tells of."""

    folder: Path
    rig: Rig

    def logs(self, count: int) -> None:
        program = self.folder / "journalctl"
        program.write_text(
            JOURNALCTL.format(pid=self.folder / "pid", argv=self.folder / "argv", count=count)
        )
        program.chmod(0o755)

    @property
    def pid(self) -> int:
        return int((self.folder / "pid").read_text())

    @property
    def argv(self) -> str:
        return (self.folder / "argv").read_text()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known(Units):
    @override
    def unavailable(self) -> str:
        return ""

    @override
    def get(self, name: str) -> UnitFact | None:
        return UnitFact(
            name=name, description="", load_state="loaded", active_state="active",
            sub_state="running",
        ) if name == "web.service" else None  # fmt: skip


@pytest.fixture
def unit(rig: Rig, tmp_path: Path) -> Unit:
    """systemd's part is pretended, journalctl is a program that writes as it does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    runner = replace(rig.actor.engine.runner, directories=(folder,), owner_uid=os.geteuid())
    facts = rig.actor.engine.facts
    assert isinstance(facts, NodeFacts)
    units = Known(run=runner.read, stream=runner.stream)
    rig.actor.engine.facts = replace(facts, units=units)
    rig.actor.engine.needs = {**rig.actor.engine.needs, "systemd": units.unavailable}
    return Unit(folder, rig)


def test_a_unit_s_journal_is_told_line_by_line(ear: Ear, unit: Unit) -> None:
    unit.logs(3)
    talk = ear.open("service.journal", unit="web.service", lines=50)
    lines: list[Any] = []
    while len(lines) < 4:
        part = JournalPart.model_validate(talk.json()["data"])
        lines += part.lines
    assert [line.text for line in lines] == [
        *(f"line {n} <b>\ufffd[31m" for n in range(3)), "h\ufffd",
    ]  # fmt: skip
    assert (lines[0].priority, lines[0].identifier, lines[0].pid) == (3, "web", 77)
    assert part.cursor == "s=1;i=last"
    assert "--unit=web.service --follow --lines=50" in unit.argv
    talk.sock.close()
    assert _gone(unit.pid)


def test_a_stream_goes_on_behind_the_line_that_was_seen(ear: Ear, unit: Unit) -> None:
    unit.logs(1)
    talk = ear.open("service.journal", unit="web.service", after="s=1;i=9")
    talk.json()
    assert "--after-cursor=s=1;i=9 --no-tail" in unit.argv


def test_a_flood_of_lines_is_bounded_and_what_is_left_out_is_counted(
    ear: Ear, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BURST", 100)
    monkeypatch.setattr(service, "LINES_PER_SECOND", 10)
    unit.logs(5000)
    talk = ear.open("service.journal", unit="web.service")
    shown = dropped = 0
    while shown + dropped < 5001:
        part = JournalPart.model_validate(talk.json()["data"])
        shown, dropped = shown + len(part.lines), dropped + part.dropped
    assert shown + dropped == 5001
    assert 100 <= shown < 400


def test_who_does_not_read_stops_journalctl_and_nothing_else(ear: Ear, unit: Unit) -> None:
    unit.logs(200_000)
    before = _resident()
    talk = ear.open("service.journal", unit="web.service")
    talk.json()
    time.sleep(2)
    assert _resident() - before < 20 << 20
    other = ear.open("process.top", limit=1)
    began = time.monotonic()
    look(other)
    assert time.monotonic() - began < 2
    talk.sock.close()
    assert _gone(unit.pid)


def test_a_journal_that_cannot_be_read_is_told(ear: Ear, unit: Unit) -> None:
    unit.logs(1)
    assert ear.refused("service.journal", {"unit": "web.service", "after": "$(x)"}) == (
        422, "params-invalid",
    )  # fmt: skip
    talk = ear.open("service.journal", unit="web.service", after="broken")
    assert talk.json()["problem"]["type"] == "unavailable"
    talk = ear.open("service.journal", unit="other.service")
    assert talk.json()["problem"]["type"] == "refused"


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.02)
    return False


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_containers_write_is_told_behind_what_was_seen(ear: Ear, rig: Rig) -> None:
    lines = [
        LogFact(container=name, stream="stdout", at_seconds=100.0 + at, text=f"{name} {at}")
        for name, at in (("web", 0), ("db", 1), ("web", 2), ("db", 3))
    ]
    found = [
        ContainerFact(engine="docker", id=one * 8, name=one, image="i") for one in ("web", "db")
    ]
    facts = rig.actor.engine.facts
    assert isinstance(facts, NodeFacts)
    containers = PretendedContainers(found=found, logged=lines)
    rig.actor.engine.facts = replace(facts, containers=containers)
    rig.actor.engine.needs = {**rig.actor.engine.needs, "containers": containers.unavailable}
    talk = ear.open("container.logs", containers=["web", "db"], lines=3)
    part = LogPart.model_validate(talk.json()["data"])
    assert [one.text for one in part.lines] == ["db 1", "web 2", "db 3"]
    assert part.cursor == {"web": 102.0, "db": 103.0}
    talk = ear.open("container.logs", containers=["web", "db"], after={"web": 100.0, "db": 101.0})
    assert LogPart.model_validate(talk.json()["data"]).lines == ()
    part = LogPart.model_validate(talk.json()["data"])
    assert [one.text for one in part.lines] == ["web 2", "db 3"]
    gone = ear.open("container.logs", containers=["gone"])
    assert gone.json()["problem"]["detail"] == "there is no container gone in docker"
    assert gone.close_code() == 1008
    many = {"containers": [f"c{n}" for n in range(9)]}
    assert ear.refused("container.logs", many) == (422, "params-invalid")
