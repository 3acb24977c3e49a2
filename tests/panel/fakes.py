"""Services in memory, for page tests and for looking at pages without a product behind them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.wire import (
    FieldError,
    PlannedStep,
    PlanReply,
    RunState,
    StepRecord,
    new_run_id,
)
from narthex_operator.errors import (
    ActorOffError,
    ConflictError,
    DeniedError,
    InvalidError,
    LimitedError,
    NotFoundError,
    NotSignedInError,
    UnreachableError,
)
from narthex_operator.services.access import GRANTS, Actor, Role
from narthex_operator.services.interfaces import Services
from narthex_operator.services.views import (
    ActorView,
    AlertState,
    AlertsView,
    AlertView,
    AuditPage,
    AuditRow,
    Chart,
    FleetView,
    JoinView,
    LogLine,
    LogPage,
    LogSearch,
    NodeState,
    NodeStatus,
    NodeView,
    PartState,
    PlanView,
    RunView,
    Series,
    SessionView,
    SilenceView,
    UserView,
)

NOW = datetime(2026, 11, 24, 14, 5, 0, tzinfo=UTC)
WORDS = "amber canyon lunar pepper quiet raven"
ASKS = {"safe": "none", "reversible": "click", "disruptive": "reason", "destructive": "typed"}

_NODES = (
    ("web-1", NodeState.UP, 0.34, 0.62, 0.41, 1.21, 4, 0, ""),
    ("web-2", NodeState.UP, 0.91, 0.78, 0.44, 6.02, 4, 1, "warning"),
    ("db-primary", NodeState.UP, 0.18, 0.83, 0.93, 2.4, 16, 2, "critical"),
    ("db-replica", NodeState.STALE, 0.12, 0.80, 0.71, 0.9, 16, 0, ""),
    ("cache-1", NodeState.UP, 0.04, 0.35, 0.12, 0.08, 2, 0, ""),
    ("batch-fra-07", NodeState.DOWN, None, None, None, None, None, 1, "critical"),
    ("edge-helsinki", NodeState.PENDING, None, None, None, None, None, 0, ""),
)


def node(name: str, state: NodeState, number: int = 1) -> NodeView:
    return NodeView(
        id=f"{number:016x}",
        name=name,
        address=f"10.0.4.{10 + number}:19100",
        state=state,
        group="production",
        fingerprint=WORDS,
        added_at=NOW - timedelta(days=40),
        enrolled_at=NOW - timedelta(days=40),
        certificate_not_after=NOW + timedelta(days=30),
        actor_instance="" if state is NodeState.DOWN else "c0ffee",
    )


@dataclass
class World:
    """What all the fakes look at. ``mode`` is ``full``, ``empty`` or ``failing``."""

    mode: str = "full"
    role: Role = Role.ADMIN
    language: str = ""
    theme: str = ""
    must_change_password: bool = False
    password: str = "correct horse battery"
    text: str = ""
    """Text to put wherever a node could: hostile in tests."""
    systemd: bool = True
    actor_off: bool = False
    now: datetime | None = None
    silenced: dict[str, SilenceView] = field(default_factory=dict)
    runs: dict[str, RunView] = field(default_factory=dict)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    approved: set[str] = field(default_factory=set)
    ended_sessions: set[str] = field(default_factory=set)
    reads: int = 0
    cpu: float = 0.0
    """Added to each node's CPU, so that a test sees a change."""

    @property
    def time(self) -> datetime:
        return self.now or datetime.now(tz=UTC)

    @property
    def actor(self) -> Actor:
        return Actor(
            id="user:1", name="anna", grants=GRANTS[self.role], session="abc", address="127.0.0.1"
        )

    @property
    def user(self) -> UserView:
        return UserView(
            id=1,
            name="anna",
            role=self.role,
            language=self.language,
            theme=self.theme,
            must_change_password=self.must_change_password,
            created_at=NOW,
        )

    def failing(self) -> bool:
        return self.mode == "failing"

    def nodes(self) -> list[NodeView]:
        if self.mode == "empty":
            return []
        made = [node(row[0], row[1], index + 1) for index, row in enumerate(_NODES)]
        return [
            one.model_copy(update={"state": NodeState.UP}) if one.id in self.approved else one
            for one in made
        ]

    def find(self, ref: str) -> NodeView:
        for one in self.nodes():
            if ref in {one.id, one.name}:
                return one
        raise NotFoundError(f"there is no node {ref!r}", hint="see the list of nodes")


@dataclass
class FakeAccounts:
    world: World

    def sign_in(self, name: str, password: str, *, address: str, user_agent: str) -> str:
        if name == "locked":
            raise LimitedError(
                "too many tries to sign in as locked", retry_after_seconds=90, hint="wait"
            )
        if name != "anna" or password != self.world.password:
            raise NotSignedInError("the name or the password is wrong", hint="check both")
        return "session-token"

    def session(self, token: str, *, address: str) -> tuple[Actor, SessionView]:
        if token in self.world.ended_sessions or not token:
            raise NotSignedInError("the session has ended", hint="sign in again")
        view = SessionView(
            user=self.world.user,
            csrf="csrf-token",
            must_change_password=self.world.must_change_password,
        )
        return self.world.actor, view

    def sign_out(self, token: str) -> None:
        self.world.ended_sessions.add(token)

    def change_password(self, actor: Actor, token: str, *, old: str, new: str) -> str:
        if old != self.world.password:
            raise InvalidError("the old password is wrong")
        self.world.password, self.world.must_change_password = new, False
        return "another-token"

    def set_preferences(self, actor: Actor, *, language: str, theme: str) -> None:
        self.world.language, self.world.theme = language, theme

    def authenticate_token(self, bearer: str, *, address: str) -> Actor:
        raise NotSignedInError("no such token")

    def users(self, actor: Actor) -> Sequence[UserView]:
        actor.require("user:read")
        return [self.world.user]

    def add_user(self, actor: Actor, *, name: str, role: str, password: str | None) -> str:
        actor.require("user:write")
        return "first-password"

    def reset_password(self, actor: Actor, *, name: str) -> str:
        actor.require("user:write")
        return "first-password"

    def unlock(self, actor: Actor, *, name: str) -> None:
        actor.require("user:write")

    def create_token(self, actor: Actor, *, name: str, role: str, lifetime: timedelta) -> str:
        actor.require("token:write")
        return "nxt_token"


@dataclass
class FakeNodes:
    world: World

    def list(self, actor: Actor) -> Sequence[NodeView]:
        actor.require("node:read")
        return self.world.nodes()

    def get(self, actor: Actor, ref: str) -> NodeView:
        actor.require("node:read")
        return self.world.find(ref)

    def add(self, actor: Actor, *, name: str, address: str, lifetime: timedelta) -> JoinView:
        actor.require("node:write")
        if name == "web-1":
            raise ConflictError("there is a node web-1 already", hint="choose another name")
        return JoinView(
            node=node(name, NodeState.JOINING, 99),
            token="nxj_Zm9vYmFy",
            ca_pin="sha256:5f3c9a",
            command="narthex join https://ops.example:19101 --token nxj_Zm9vYmFy"
            " --ca-pin sha256:5f3c9a0d9a7b4a4f8fbd0f4f9e8f1c2d3e4f5a6b7c8d9e0f",
            expires_at=self.world.time + lifetime,
        )

    def approve(self, actor: Actor, ref: str) -> NodeView:
        actor.require("node:write")
        found = self.world.find(ref)
        self.world.approved.add(found.id)
        return found

    def remove(self, actor: Actor, ref: str) -> NodeView:
        actor.require("node:write")
        return self.world.find(ref)


@dataclass
class FakeFleet:
    world: World

    def overview(self, actor: Actor) -> FleetView:
        actor.require("node:read")
        self.world.reads += 1
        found = {one.id: one for one in self.world.nodes()}
        rows = []
        for index, (_, state, cpu, memory, disk, load, cpus, firing, severity) in enumerate(
            _NODES if found else ()
        ):
            one = found[f"{index + 1:016x}"]
            known = cpu is not None and not self.world.failing()
            age = 754.0 if state is NodeState.STALE else 3.0
            rows.append(
                NodeStatus(
                    node=one,
                    state=NodeState.UP if one.id in self.world.approved else state,
                    cpu_ratio=cpu + self.world.cpu if known and cpu is not None else None,
                    memory_ratio=memory if known else None,
                    disk_ratio=disk if known else None,
                    disk_mountpoint=self.world.text or "/var/lib/postgresql",
                    load1=load if known else None,
                    cpus=cpus,
                    uptime_seconds=3_456_789.0 if known else None,
                    alerts_firing=firing,
                    alerts_severity=severity,
                    sampled_at=self.world.time - timedelta(seconds=age) if known else None,
                    age_seconds=age if known else None,
                )
            )
        return FleetView(
            nodes=tuple(rows),
            generated_at=self.world.time,
            problem="Prometheus does not answer at 127.0.0.1:19103: connection refused"
            if self.world.failing()
            else "",
        )

    def charts(self, actor: Actor, ref: str, *, minutes: int) -> Sequence[Chart]:
        self.world.find(ref)
        end = self.world.time.timestamp()
        count = 120
        times = tuple(end - (count - i) * minutes * 60 / count for i in range(count))

        def wave(base: float, amplitude: float, period: float) -> tuple[float | None, ...]:
            return tuple(
                None
                if 60 < i < 66
                else max(0.0, base + amplitude * math.sin(i / period) + amplitude * (i % 7) / 14)
                for i in range(count)
            )

        if self.world.failing():
            return [
                Chart(
                    name=name,
                    unit="ratio",
                    times=(),
                    series=(),
                    query="up",
                    problem="Prometheus does not answer",
                )
                for name in ("cpu", "memory", "disk", "network", "load")
            ]
        return [
            Chart(
                name="cpu",
                unit="ratio",
                times=times,
                query='1 - avg(rate(node_cpu_seconds_total{mode="idle"}[2m]))',
                series=(
                    Series(label="busy", values=wave(0.3, 0.15, 9)),
                    Series(label="iowait", values=wave(0.03, 0.02, 5)),
                ),
            ),
            Chart(
                name="memory",
                unit="ratio",
                times=times,
                query="1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes",
                series=(Series(label="used", values=wave(0.62, 0.02, 21)),),
            ),
            Chart(
                name="disk",
                unit="ratio",
                times=times,
                query="1 - node_filesystem_avail_bytes / node_filesystem_size_bytes",
                series=(
                    Series(label="/", values=wave(0.41, 0.0, 9)),
                    Series(label="/var/lib/postgresql", values=wave(0.85, 0.01, 30)),
                ),
            ),
            Chart(
                name="network",
                unit="bytes_per_second",
                times=times,
                query="rate(node_network_receive_bytes_total[2m])",
                series=(
                    Series(label="received", values=wave(3_400_000, 900_000, 8)),
                    Series(label="sent", values=wave(1_100_000, 400_000, 6)),
                ),
            ),
            Chart(
                name="load",
                unit="load",
                times=times,
                query="node_load1",
                series=(
                    Series(label="1 min", values=wave(1.4, 0.8, 7)),
                    Series(label="5 min", values=wave(1.2, 0.4, 14)),
                    Series(label="15 min", values=wave(1.1, 0.2, 28)),
                ),
            ),
        ]

    def parts(self, actor: Actor) -> Sequence[PartState]:
        bad = self.world.failing()
        return [
            PartState(name="operator", ok=True, detail="0.1.0, running for 3 d"),
            PartState(name="signer", ok=True, detail="answers in 2 ms"),
            PartState(
                name="prometheus",
                ok=not bad,
                detail="connection refused" if bad else "2.42.0, 7 targets",
                hint="see log/prometheus.log" if bad else "",
            ),
            PartState(name="alertmanager", ok=True, detail="0.25.0"),
            PartState(name="logstore", ok=True, detail="412 MiB"),
        ]


def process(
    pid: int, comm: str, cpu: float, rss: int, user: str = "www-data", **more: Any
) -> dict[str, Any]:
    return {
        "pid": pid,
        "start_ticks": pid * 100,
        "ppid": 1,
        "user": user,
        "comm": comm,
        "cmdline": more.pop("cmdline", f"/usr/sbin/{comm} -c /etc/{comm}.conf"),
        "state": "S",
        "nice": 0,
        "threads": 4,
        "rss_bytes": rss,
        "cpu_seconds": cpu * 1000,
        "cpu_ratio": cpu,
        "started_at": (NOW - timedelta(hours=pid % 400)).isoformat(),
        "is_kernel_thread": False,
        "is_ours": False,
        "owner_unit": f"{comm}.service",
        "owner_container": "",
        **more,
    }


_UNITS = (
    ("nginx.service", "A high performance web server", "active", "running", "enabled"),
    ("postgresql@15-main.service", "PostgreSQL Cluster 15-main", "active", "running", "enabled"),
    ("backup.service", "Nightly backup", "failed", "failed", "static"),
    ("ssh.service", "OpenBSD Secure Shell server", "active", "running", "enabled"),
    ("cron.service", "Regular background program processing", "active", "running", "enabled"),
    ("apt-daily.service", "Daily apt download activities", "inactive", "dead", "static"),
    ("rsync.service", "fast remote file copy program daemon", "inactive", "dead", "disabled"),
    ("redis-server.service", "Advanced key-value store", "activating", "start", "enabled"),
)


@dataclass
class FakeRuns:
    world: World

    def actor_of(self, actor: Actor, ref: str) -> ActorView:
        self.world.find(ref)
        if self.world.actor_off:
            return ActorView(
                off_reason="the actor is not enabled on this node",
                hint="on the node: systemctl enable --now narthex-actor.socket",
            )
        why = "" if self.world.systemd else "systemd is not running"
        return ActorView(
            version="0.1.0",
            policy={"mode": "act", "service": "disruptive", "process": "disruptive"},
            actions={name: why if "service" in name else "" for name in CATALOGUE},
            queries={
                "process.list": "",
                "process.get": "",
                "service.list": why,
                "service.get": why,
                "host.info": "",
            },
        )

    def query(
        self, actor: Actor, ref: str, name: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        actor.require(f"query:{name}")
        self.world.find(ref)
        self.world.reads += 1
        if self.world.actor_off:
            raise ActorOffError("the actor is not enabled on this node", hint="enable it there")
        if self.world.failing():
            raise UnreachableError(
                f"{ref} does not answer at 10.0.4.11:19100: timed out after 5 s",
                hint="check the node's network and its exporter",
            )
        return self._answer(name, params)

    def _answer(self, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
        text = self.world.text
        if name == "process.list":
            found = [
                process(4242, text or "nginx", 0.62, 48_000_000, cmdline=text or "nginx: worker"),
                process(811, "postgres", 1.84, 2_480_000_000, user="postgres"),
                process(1, "systemd", 0.0, 12_000_000, user="root", owner_unit="init.scope"),
                process(2, "kthreadd", 0.0, 0, user="root", is_kernel_thread=True, cmdline=""),
                process(900, "narthex", 0.01, 61_000_000, user="narthex", is_ours=True),
                process(
                    31337,
                    "java",
                    0.31,
                    1_900_000_000,
                    user="app",
                    owner_container="billing-api",
                    cmdline="/usr/bin/java -Xmx2g -jar /srv/app/billing-api-2.14.3.jar"
                    " --spring.profiles.active=production --server.port=8080",
                ),
                *(process(5000 + n, f"worker-{n}", 0.02, 9_000_000 + n) for n in range(20)),
            ]
            wanted = str(params.get("match", "")).casefold()
            kept = [
                one
                for one in found
                if wanted in f"{one['comm']} {one['cmdline']} {one['user']}".casefold()
            ]
            if self.world.mode == "empty":
                kept = []
            return {"processes": kept, "total": len(kept)}
        if name == "service.list":
            units = [
                {
                    "name": unit,
                    "description": text or description,
                    "load_state": "loaded",
                    "active_state": active,
                    "sub_state": sub,
                    "unit_file_state": file_state,
                }
                for unit, description, active, sub, file_state in _UNITS
            ]
            return {"units": [] if self.world.mode == "empty" else units, "total": len(units)}
        if name == "service.get":
            row = next((row for row in _UNITS if row[0] == params["unit"]), None)
            if row is None:
                return {"unit": None, "journal": []}
            unit, description, active, sub, file_state = row
            return {
                "unit": {
                    "name": unit,
                    "description": text or description,
                    "load_state": "loaded",
                    "active_state": active,
                    "sub_state": sub,
                    "unit_file_state": file_state,
                    "fragment_path": f"/lib/systemd/system/{unit}",
                    "can_reload": True,
                    "main_pid": 4242,
                    "required_by": [],
                    "memory_bytes": 48_000_000,
                    "tasks": 5,
                    "active_since": (self.world.time - timedelta(days=3)).isoformat(),
                    "result": "exit-code" if active == "failed" else "success",
                    "exit_status": 1 if active == "failed" else 0,
                    "restarts": 2,
                },
                "journal": [
                    text or "Nov 24 13:59:01 web-1 nginx[4242]: started worker process 4243",
                    "Nov 24 13:59:01 web-1 nginx[4242]: \x1b[31mbind() failed\x1b[0m (98)",
                ],
            }
        return {
            "hostname": "web-1",
            "os_name": text or "Debian GNU/Linux",
            "os_version": "12 (bookworm)",
            "kernel": "6.1.0-28-amd64",
            "architecture": "x86_64",
            "virtualization": "kvm",
            "cpus": 4,
            "memory_bytes": 8_321_499_136,
            "boot_id": "f00d",
            "booted_at": (self.world.time - timedelta(days=40, hours=3)).isoformat(),
            "systemd_unavailable": "" if self.world.systemd else "systemd is not running",
        }

    def plan(self, actor: Actor, ref: str, name: str, params: Mapping[str, Any]) -> PlanView:
        action = CATALOGUE[name]
        actor.require(action.permission, danger=action.danger)
        try:
            checked = action.params.model_validate(dict(params))
        except ValueError as error:
            told = (FieldError(path="params.nice", message="should be at most 19"),)
            raise InvalidError("some fields are not valid", errors=told) from error
        resource = checked.resource
        return PlanView(
            node=self.world.find(ref),
            action=name,
            title=action.title,
            summary=action.summary,
            description=action.description,
            danger=action.danger,
            confirm=ASKS[action.danger],
            params=dict(params),
            plan=PlanReply(
                action=name,
                resource=resource,
                danger=action.danger,
                steps=(
                    PlannedStep(
                        text=self.world.text or "systemd: RestartUnit(nginx.service, replace)",
                        exact={"kind": "dbus", "method": "RestartUnit"},
                    ),
                ),
                notes=("required by billing.service",),
                digest="d1gest",
            ),
        )

    def submit(
        self,
        actor: Actor,
        ref: str,
        name: str,
        params: Mapping[str, Any],
        *,
        plan: str,
        reason: str = "",
        confirmation: str = "",
        run_id: str | None = None,
    ) -> RunView:
        action = CATALOGUE[name]
        actor.require(action.permission, danger=action.danger)
        if ASKS[action.danger] in {"reason", "typed"} and not reason.strip():
            raise InvalidError("say why: this action is noticed by users")
        key = run_id or new_run_id()
        self.world.submitted.append({"action": name, "params": dict(params), "reason": reason})
        resource = action.params.model_validate(dict(params)).resource
        self.world.runs[key] = run(
            key, RunState.RUNNING, name, resource, created_at=self.world.time
        )
        return self.world.runs[key]

    def get(self, actor: Actor, run_id: str) -> RunView:
        actor.require("run:read")
        known = {one.id: one for one in self.list(actor)}
        if run_id not in known:
            raise NotFoundError(f"there is no run {run_id}")
        return known[run_id]

    def list(self, actor: Actor, *, node: str = "", limit: int = 50) -> Sequence[RunView]:
        actor.require("run:read")
        if self.world.mode == "empty":
            return list(self.world.runs.values())
        at = self.world.time
        made = [
            run("0190-a", RunState.SUCCEEDED, created_at=at - timedelta(minutes=4)),
            run(
                "0190-b",
                RunState.FAILED,
                "process.signal",
                "process/4242",
                created_at=at - timedelta(hours=2),
                error="process 4242 still lives 10 s after TERM",
                hint="send KILL if it must end now",
            ),
            run("0190-c", RunState.UNKNOWN, "service.stop", created_at=at - timedelta(days=1)),
        ]
        found = [*reversed(self.world.runs.values()), *made]
        if self.world.text:
            found = [
                one.model_copy(
                    update={
                        "error": self.world.text,
                        "steps": tuple(
                            step.model_copy(update={"output": self.world.text})
                            for step in one.steps
                        ),
                    }
                )
                for one in found
            ]
        return [one for one in found if not node or node in {one.node, one.node_name}][:limit]

    def cancel(self, actor: Actor, run_id: str) -> RunView:
        found = self.get(actor, run_id).model_copy(update={"state": RunState.CANCELLED})
        self.world.runs[run_id] = found
        return found


def run(
    key: str,
    state: RunState,
    action: str = "service.restart",
    resource: str = "service/nginx.service",
    *,
    created_at: datetime = NOW,
    **more: Any,
) -> RunView:
    declared = CATALOGUE[action]
    return RunView(
        id=key,
        node=f"{1:016x}",
        node_name="web-1",
        action=action,
        title=declared.title,
        resource=resource,
        danger=declared.danger,
        state=state,
        actor="user:1",
        reason="the certificate was renewed",
        params={"unit": "nginx.service"},
        steps=(
            StepRecord(
                text="systemd: RestartUnit(nginx.service, replace)",
                state=state,
                code=0 if state is RunState.SUCCEEDED else None,
                output="job 4711 done",
                duration_seconds=0.84,
            ),
        ),
        after={"active_state": "active", "main_pid": 4301} if state.final else None,
        inverse=declared.inverse,
        created_at=created_at,
        started_at=created_at + timedelta(seconds=1),
        finished_at=created_at + timedelta(seconds=3) if state.final else None,
        **more,
    )


@dataclass
class FakeAudit:
    world: World

    def list(
        self,
        actor: Actor,
        *,
        before: int | None = None,
        limit: int = 50,
        node: str = "",
        event: str = "",
        run: str = "",
    ) -> AuditPage:
        actor.require("audit:read")
        if self.world.mode == "empty":
            return AuditPage(rows=())
        events = ("run.finished", "run.requested", "session.started", "alert.silenced")
        rows = [
            AuditRow(
                seq=seq,
                at=self.world.time - timedelta(minutes=7 * (120 - seq)),
                event=events[seq % 4],
                actor="user:1",
                actor_name="anna",
                address="192.0.2.7",
                node=f"{1:016x}" if seq % 4 < 2 else "",
                node_name="web-1" if seq % 4 < 2 else "",
                resource="service/nginx.service" if seq % 4 < 2 else "",
                run="0190-a" if seq % 4 < 2 else "",
                reason=self.world.text or "the certificate was renewed" if seq % 4 == 1 else "",
                outcome="succeeded" if seq % 4 == 0 else "",
            )
            for seq in range((before or 121) - 1, 0, -1)
        ]
        kept = [
            row
            for row in rows
            if (not event or row.event == event)
            and (not node or node in {row.node, row.node_name})
            and (not run or row.run == run)
        ][:limit]
        return AuditPage(
            rows=tuple(kept),
            next_before=kept[-1].seq if kept and kept[-1].seq > 1 else None,
            verified_up_to=120 if not self.world.failing() else 77,
            intact=not self.world.failing(),
        )


@dataclass
class FakeAlerts:
    world: World

    def current(self, actor: Actor, *, node: str = "") -> AlertsView:
        actor.require("alert:read")
        if self.world.failing():
            raise UnreachableError(
                "Alertmanager does not answer at 127.0.0.1:19104: connection refused",
                hint="see log/alertmanager.log",
            )
        if self.world.mode == "empty":
            return AlertsView(alerts=())
        at = self.world.time
        text = self.world.text
        made = [
            alert(
                "a1",
                "NodeFilesystemAlmostFull",
                "critical",
                "db-primary",
                text or "/var/lib/postgresql on db-primary is 93 % full",
                at - timedelta(minutes=38),
            ),
            alert(
                "a2",
                "NodeDown",
                "critical",
                "batch-fra-07",
                "batch-fra-07 has not answered for 12 minutes",
                at - timedelta(minutes=12),
            ),
            alert(
                "a3",
                "NodeCPUHigh",
                "warning",
                "web-2",
                "web-2 uses 91 % of its CPU",
                at - timedelta(minutes=6),
            ),
            alert(
                "a4",
                "NodeMemoryHigh",
                "warning",
                "db-replica",
                "db-replica uses 80 % of its memory",
                at - timedelta(minutes=1),
                AlertState.PENDING,
            ),
        ]
        found = [
            one.model_copy(
                update={"state": AlertState.SILENCED, "silence": self.world.silenced[one.id]}
            )
            if one.id in self.world.silenced
            else one
            for one in made
        ]
        return AlertsView(alerts=tuple(a for a in found if not node or a.node_name == node))

    def history(self, actor: Actor, *, node: str = "", limit: int = 100) -> AlertsView:
        actor.require("alert:read")
        if self.world.mode == "empty":
            return AlertsView(alerts=())
        at = self.world.time
        return AlertsView(
            alerts=(
                alert(
                    "h1",
                    "NodeCPUHigh",
                    "warning",
                    "web-1",
                    "web-1 uses 96 % of its CPU",
                    at - timedelta(hours=5),
                    AlertState.RESOLVED,
                    ended_at=at - timedelta(hours=4, minutes=20),
                ),
            )
        )

    def receive(self, payload: Mapping[str, Any]) -> int:
        return 0

    def silence(
        self, actor: Actor, alert_id: str, *, duration: timedelta, comment: str
    ) -> SilenceView:
        actor.require("alert:silence")
        found = SilenceView(
            id=f"s-{alert_id}",
            matchers=('alertname="NodeCPUHigh"', 'node="web-2"'),
            created_by=actor.name,
            comment=comment,
            starts_at=self.world.time,
            ends_at=self.world.time + duration,
        )
        self.world.silenced[alert_id] = found
        return found

    def unsilence(self, actor: Actor, silence_id: str) -> None:
        actor.require("alert:silence")
        self.world.silenced.pop(silence_id.removeprefix("s-"), None)


def alert(
    key: str,
    name: str,
    severity: str,
    node_name: str,
    summary: str,
    started_at: datetime,
    state: AlertState = AlertState.FIRING,
    **more: Any,
) -> AlertView:
    return AlertView(
        id=key,
        fingerprint=key,
        name=name,
        severity=severity,
        state=state,
        node_name=node_name,
        instance=f"{node_name}:19100",
        summary=summary,
        description=f"{summary}. At this rate there are 3 hours left.",
        runbook_url=f"https://docs.example/runbooks/{name}",
        labels={"alertname": name, "node": node_name, "severity": severity, "job": "node"},
        started_at=started_at,
        **more,
    )


@dataclass
class FakeLogs:
    world: World

    def search(self, actor: Actor, search: LogSearch) -> LogPage:
        actor.require("log:read")
        query = f'{{node="{search.node or ".+"}"}} |= "{search.text}"'
        if self.world.failing():
            raise UnreachableError(
                "the log store does not answer at 127.0.0.1:19102: connection refused",
                hint="see log/logstore.log",
            )
        messages = (
            ("info", '10.0.9.14 - - "GET /api/orders?page=2 HTTP/1.1" 200 5311'),
            ("error", "upstream timed out (110: Connection timed out) while reading response"),
            ("warning", "worker process 4243 \x1b[33mexited\x1b[0m on signal 15"),
            ("info", "checkpoint complete: wrote 1284 buffers (7.8 %); 0 WAL files added"),
        )
        end = int(search.end.timestamp() * 1e9)
        lines = [
            LogLine(
                ns=str(end - (n + 1) * 700_000_000),
                at=datetime.fromtimestamp((end - (n + 1) * 700_000_000) / 1e9, tz=UTC),
                line=self.world.text or messages[n % 4][1],
                labels={
                    "node": ("web-1", "db-primary")[n % 2],
                    "unit": ("nginx.service", "postgresql@15-main.service")[n % 2],
                    "level": messages[n % 4][0],
                },
            )
            for n in range(0 if self.world.mode == "empty" else 60)
        ]
        found = [one for one in lines if search.regex or search.text in one.line]
        return LogPage(
            lines=tuple(found),
            query=query,
            more=bool(found),
            empty_reason=""
            if found
            else "no line of the last hour contains that text; 4 121 lines were searched",
        )

    def label_values(self, actor: Actor, label: str, *, node: str = "") -> Sequence[str]:
        if self.world.failing():
            raise UnreachableError("the log store does not answer")
        return {
            "unit": ["nginx.service", "postgresql@15-main.service", "ssh.service"],
            "level": ["error", "info", "warning"],
        }.get(label, [])


def services(world: World) -> Services:
    """Make all the fakes over one world."""
    return Services(
        accounts=FakeAccounts(world),
        nodes=FakeNodes(world),
        fleet=FakeFleet(world),
        runs=FakeRuns(world),
        audit=FakeAudit(world),
        alerts=FakeAlerts(world),
        logs=FakeLogs(world),
    )


__all__ = ["DeniedError", "NarthexError", "World", "services"]
