"""Queries, plans and runs in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tests.panel.fake_containers import answer as answer_of_containers
from tests.panel.fake_network import network_answer
from tests.panel.fake_programs import answer as answer_of_programs
from tests.panel.world import NOW, World

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.contract.wire import (
    FieldError,
    PlannedStep,
    PlanReply,
    RunState,
    StepRecord,
    UndoHint,
    new_run_id,
)
from narthex_exporter.queries import CATALOGUE as QUERIES
from narthex_operator.errors import (
    ActorOffError,
    InvalidError,
    NotFoundError,
    UnreachableError,
)
from narthex_operator.services.access import Actor
from narthex_operator.services.views import (
    ActorView,
    AnswerGroup,
    FleetAnswer,
    NodeFailure,
    PlanView,
    ProbeView,
    RunView,
)

ASKS = {"safe": "none", "reversible": "click", "disruptive": "reason", "destructive": "typed"}


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
            policy={
                "mode": "manage",
                "danger": {"process": "reversible", "service": "disruptive"},
                "root_equivalent": [],
                "service": {
                    "deny": ["ssh*", "systemd-*", self.world.text or "dbus*"],
                    "allow": None,
                },
                "process": {"protect_users": [], "protect_comm": ["sshd", "systemd*"]},
                "rate": {"disruptive": "30/min"},
                "require_approvals": {"destructive": "2"},
            },
            actions={
                name: self.world.forbidden.get(name, why if "service" in name else "")
                for name in CATALOGUE
            },
            queries={
                name: self.world.unanswered.get(name, why if "service" in name else "")
                for name in QUERIES
            },
            follows={"container.logs": "", "process.top": "", "service.journal": why}
            if self.world.follows
            else {},
        )

    def query(
        self, actor: Actor, ref: str, name: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        actor.require(QUERIES[name].permission)
        self.world.find(ref)
        self.world.reads += 1
        if self.world.actor_off:
            raise ActorOffError("the actor is not enabled on this node", hint="enable it there")
        if self.world.failing():
            raise UnreachableError(
                f"{ref} does not answer at 10.0.4.11:19100: timed out after 5 s",
                hint="check the node's network and its exporter",
            )
        if name.startswith(("port.", "firewall.")):
            return network_answer(name, self.world.text, empty=self.world.mode == "empty")
        if name.startswith("supervisor."):
            return answer_of_programs(
                name, params, self.world.text, empty=self.world.mode == "empty"
            )
        known = answer_of_containers(name, params, self.world.text)
        return self._answer(name, params) if known is None else known

    def _answer(self, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
        text = self.world.text
        if name.startswith("process."):
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
            if name != "process.list":
                return _of_processes(name, params, kept, text)
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
                    "memory_bytes": 48_000_000 if active == "active" else None,
                    "next_elapse": (self.world.time + timedelta(hours=3)).isoformat(),
                }
                for unit, description, active, sub, file_state in _UNITS
            ]
            return {"units": [] if self.world.mode == "empty" else units, "total": len(units)}
        if name == "service.get":
            row = next((row for row in _UNITS if row[0] == params["unit"]), None)
            if row is None:
                return dict(QUERIES[name].result(unit=None).model_dump(mode="json"))
            unit, description, active, sub, file_state = row
            return {
                **_unit_detail(unit, text),
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
            run(
                "0190-d",
                RunState.CONFIRMING,
                "service.stop",
                created_at=at - timedelta(seconds=20),
                confirm_until=at + timedelta(seconds=40),
                probes=(
                    ProbeView(name="exporter", ok=True, at=at),
                    ProbeView(
                        name="ssh port 22", ok=False, at=at, detail=self.world.text or "refused"
                    ),
                ),
            ),
            run("0190-e", RunState.REVERTED, "service.stop", created_at=at - timedelta(days=2)),
            run(
                "0190-f",
                RunState.SUCCEEDED,
                "service.stop",
                created_at=at - timedelta(days=3),
                undo=UndoHint(action="service.start", params={"unit": "nginx.service"}),
            ),
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
class FakeAsking:
    world: World

    def ask(
        self, actor: Actor, name: str, params: Mapping[str, Any], refs: Sequence[str]
    ) -> FleetAnswer:
        groups, failures = [], []
        for ref in refs:
            try:
                found = FakeRuns(self.world).query(actor, ref, name, params)
            except UnreachableError as error:
                failures.append(
                    NodeFailure(
                        node=ref, node_name=ref, kind=error.kind, error=str(error), hint=error.hint
                    )
                )
            else:
                groups.append(AnswerGroup(nodes=(ref,), result=found))
        return FleetAnswer(
            query=name,
            asked=len(refs),
            groups=tuple(groups),
            failures=tuple(failures),
            seconds=0.1,
        )


def _of_processes(
    name: str, params: Mapping[str, Any], found: list[dict[str, Any]], text: str
) -> dict[str, Any]:
    """Answer process.tree, process.get and process.environment."""
    if name == "process.environment":
        return {"variables": [text or "HOME=/srv/app", "API_TOKEN=***"]}
    if name == "process.tree":
        rows = [{**one, "depth": 0 if n == 0 else 1 + n % 3, "matches": n % 4 != 1}
                for n, one in enumerate(found)]  # fmt: skip
        return {"processes": rows, "total": len(rows)}
    one = next((one for one in found if one["pid"] == params["pid"]), None)
    detail: dict[str, Any] = QUERIES[name].result(process=None).model_dump(mode="json")
    if one is None:
        return detail
    child = {**process(5000, text or "worker", 0.02, 9_000_000), "depth": 0, "matches": True}
    return {
        **detail,
        "process": {**one, "owner_user_unit": ""},
        "parents": [process(1, text or "systemd", 0.0, 12_000_000, user="root")],
        "children": [child, {**child, "pid": 5001, "depth": 1}],
        "executable": text or "/usr/sbin/nginx",
        "working_directory": text or "/",
        "files": [{"descriptor": 0, "target": text or "/dev/null"},
                  {"descriptor": 6, "target": "socket:[12345]"}],
        "files_total": 2,
        "sockets": [
            {"protocol": "tcp", "local": "0.0.0.0:80", "peer": ""},
            {"protocol": "tcp", "local": "10.0.4.11:80", "peer": text or "10.9.8.7:51514"},
        ],
        "limits": [{"name": text or "Max open files", "soft": "1024", "hard": "524288",
                    "unit": "files"}],
        "cgroup": text or "0::/system.slice/nginx.service",
        "namespaces": [{"kind": "net", "number": 4026531840, "shared": True},
                       {"kind": "pid", "number": 4026532201, "shared": False}],
        "unreadable": [text] if text else [],
    }  # fmt: skip


def _unit_detail(unit: str, text: str) -> dict[str, Any]:
    """Give the rest of service.get."""
    worker = {**process(4242, text or "nginx", 0.1, 48_000_000), "depth": 0, "matches": True}
    return {
        "relations": {"Requires": ["sysinit.target", text or "system.slice"],
                      "After": ["network.target"], "TriggeredBy": ["nginx.socket"]},
        "unmet": [{"name": "ConditionPathExists", "argument": text or "/srv/www"}],
        "files": [
            {"path": f"/lib/systemd/system/{unit}", "drop_in": "",
             "content": text or "[Service]\nExecStart=/usr/sbin/nginx -g 'daemon on;'\n"},
            {"path": f"/etc/systemd/system/{unit}.d/limits.conf", "drop_in": "limits",
             "content": text or "[Service]\nLimitNOFILE=65536\n"},
        ],
        "properties": {"KillMode": text or "mixed", "CPUWeight": 100, "CanStop": True},
        "environment": [text or "API_TOKEN=***"],
        "commands": [f"ExecStart: {text or '/usr/sbin/nginx'}"],
        "calendars": [text or "Mon..Fri 02:30"],
        "last_trigger": NOW.isoformat(),
        "processes": [worker, {**worker, "pid": 4243, "depth": 1}],
        "sockets": [{"protocol": "tcp", "local": "0.0.0.0:80", "peer": ""}],
    }  # fmt: skip
