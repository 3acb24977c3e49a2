"""What services return: typed values for pages, API and command line alike.

Text that came from a node (names of processes, log lines, outputs) is hostile wherever it
stands; pages escape it, nothing renders it. Instants are aware UTC, durations seconds, shares
ratios from 0 to 1. ``None`` means "not known", which is never shown as zero or as well.
"""

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, computed_field

from narthex_exporter.contract.spec import Danger
from narthex_exporter.contract.wire import PlannedStep, PlanReply, RunState, StepRecord, UndoHint
from narthex_operator.services.strategy import Strategy
from narthex_operator.services.waves import FleetRunState, MemberState


class View(BaseModel):
    """Base of all views."""

    model_config = ConfigDict(frozen=True)


class NodeState(enum.StrEnum):
    """How a node is, seen from here.

    ``pending``: enrolled, not yet approved · ``joining``: added, not yet enrolled · ``up``:
    scraped within three intervals · ``stale``: data older than that · ``down``: the last scrape
    failed · ``removed``: its certificate is refused.
    """

    DOWN = "down"
    JOINING = "joining"
    PENDING = "pending"
    REMOVED = "removed"
    STALE = "stale"
    UP = "up"


class NodeView(View):
    """One node as the operator keeps it. ``fingerprint`` is six words, shown on the node too."""

    id: str
    name: str
    address: str
    state: NodeState
    group: str = ""
    labels: Mapping[str, str] = {}
    fingerprint: str = ""
    added_at: datetime
    enrolled_at: datetime | None = None
    certificate_not_after: datetime | None = None
    actor_instance: str = ""
    ceiling: Mapping[str, str] = {}
    """By family the worst danger, or ``off``, that is sent to it: narrower than its own policy."""


class JoinView(View):
    """How to add a node: shown once. ``command`` is the one line to paste on it."""

    node: NodeView
    token: str
    ca_pin: str
    command: str
    expires_at: datetime


class NodeStatus(View):
    """One row of the fleet page. ``sampled_at`` is the time of the newest sample."""

    node: NodeView
    state: NodeState
    cpu_ratio: float | None = None
    memory_ratio: float | None = None
    disk_ratio: float | None = None
    disk_mountpoint: str = ""
    load1: float | None = None
    cpus: int | None = None
    uptime_seconds: float | None = None
    alerts_firing: int = 0
    alerts_severity: str = ""
    sampled_at: datetime | None = None
    age_seconds: float | None = None


class FleetView(View):
    """Every node at one moment. ``problem`` says why figures are missing, empty when none are."""

    nodes: tuple[NodeStatus, ...]
    generated_at: datetime
    problem: str = ""


class Series(View):
    """One line of a chart; ``values`` match its ``times``, ``None`` where there is none."""

    label: str
    values: tuple[float | None, ...]


class Chart(View):
    """One chart. ``unit`` is ``ratio``, ``bytes``, ``bytes_per_second`` or ``load``.

    ``times`` are Unix seconds; ``query`` is the PromQL behind it, for people.
    """

    name: str
    unit: str
    times: tuple[float, ...]
    series: tuple[Series, ...]
    query: str
    problem: str = ""


class ActorView(View):
    """What can be done on a node. ``off_reason`` is empty when its actor answers."""

    off_reason: str = ""
    hint: str = ""
    policy: Mapping[str, Any] = {}
    version: str = ""
    actions: Mapping[str, str] = {}
    queries: Mapping[str, str] = {}
    follows: Mapping[str, str] = {}
    """Each name with the reason why it is not available; empty when it is."""


class LivePermit(View):
    """What one person may watch or enter live: for one session, once opened as long as it may.

    ``terminal`` tells an action that opens one from what is only followed.
    """

    node: NodeView
    name: str
    params: Mapping[str, Any]
    actor: str
    session: str
    terminal: bool = False


class ApprovalView(View):
    """One person's approval of a run."""

    user: str
    name: str
    at: datetime


class ProbeView(View):
    """One look at whether a node can still be reached, before its run is confirmed."""

    name: str
    ok: bool
    detail: str = ""
    at: datetime


class RunView(View):
    """One run, as far as is known here; ``danger`` is by our catalogue, not by the node's word.

    ``plan`` is the plan that whoever asked for it was shown (not in lists), ``undo`` how to undo
    it. Until ``approve_until`` it waits for ``approvals_wanted`` approvals; until
    ``confirm_until`` its node waits for our confirmation, ``probes`` say why there is none.
    """

    id: str
    node: str
    node_name: str
    action: str
    title: str
    resource: str
    danger: Danger
    state: RunState
    actor: str
    reason: str = ""
    params: Mapping[str, Any] = {}
    steps: tuple[StepRecord, ...] = ()
    error: str = ""
    hint: str = ""
    after: Mapping[str, Any] | None = None
    inverse: str | None = None
    undo: UndoHint | None = None
    plan: PlanReply | None = None
    approvals_wanted: int = 0
    approvals: tuple[ApprovalView, ...] = ()
    approve_until: datetime | None = None
    confirm_until: datetime | None = None
    probes: tuple[ProbeView, ...] = ()
    fleet_run: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class AnswerGroup(View):
    """What some nodes answered alike: ``nodes`` are their names."""

    nodes: tuple[str, ...]
    result: dict[str, Any]


class NodeFailure(View):
    """Why a node gave no answer: ``node`` is its id, ``kind`` the problem's type."""

    node: str
    node_name: str
    kind: str
    error: str
    hint: str = ""


class FleetAnswer(View):
    """What many nodes answered: ``groups`` by how many gave the same, most first."""

    query: str
    asked: int
    groups: tuple[AnswerGroup, ...]
    failures: tuple[NodeFailure, ...]
    seconds: float

    @computed_field  # type: ignore[prop-decorator] # mypy knows no decorated property
    @property
    def summary(self) -> str:
        """Say it in a line: ``12 nodes: same, 1 differs; 1 gave no answer``."""
        words = "nobody answered"
        if self.groups:
            first, *rest = (len(group.nodes) for group in self.groups)
            words = f"{first} node{'s'[: first != 1]}: same"
            if rest:
                words += f", {sum(rest)} differ{'s'[: sum(rest) == 1]}"
        if self.failures:
            words += f"; {len(self.failures)} gave no answer"
        return words


class ApprovalRequestView(View):
    """A run that waits for approval, or waited, as one person sees it.

    ``why_not`` says why whoever looks cannot approve it; empty where they can.
    """

    run: RunView
    why_not: str = ""


class PlanView(View):
    """A plan with what the panel must ask before it runs.

    ``approvals`` is how many other people must approve it, by the node's policy and by ours.

    ``confirm``: ``none``, ``click``, ``reason`` (a click and a reason) or ``typed`` (type the
    resource, and a reason).
    """

    node: NodeView
    action: str
    title: str
    summary: str
    description: str
    danger: Danger
    confirm: str
    params: Mapping[str, Any]
    plan: PlanReply
    approvals: int = 0


class AuditRow(View):
    """One row of the audit: who, when, from where, what, on what, and how it ended."""

    seq: int
    at: datetime
    event: str
    actor: str
    actor_name: str
    address: str = ""
    node: str = ""
    node_name: str = ""
    resource: str = ""
    run: str = ""
    reason: str = ""
    outcome: str = ""
    details: Mapping[str, Any] = {}
    hash: str = ""


class AuditPage(View):
    """Some rows, newest first. ``verified_up_to`` is the last row that the chain proves."""

    rows: tuple[AuditRow, ...]
    next_before: int | None = None
    verified_up_to: int = 0
    intact: bool = True


class AlertState(enum.StrEnum):
    """Where an alert stands."""

    FIRING = "firing"
    PENDING = "pending"
    RESOLVED = "resolved"
    SILENCED = "silenced"


class AlertView(View):
    """One alert. ``id`` is Alertmanager's fingerprint with the start, stable over retries."""

    id: str
    fingerprint: str
    name: str
    severity: str
    state: AlertState
    node_name: str = ""
    instance: str = ""
    summary: str = ""
    description: str = ""
    runbook_url: str = ""
    labels: Mapping[str, str] = {}
    started_at: datetime
    ended_at: datetime | None = None
    silence: "SilenceView | None" = None


class SilenceView(View):
    """One silence of Alertmanager's: who silenced what until when, and why."""

    id: str
    matchers: tuple[str, ...]
    created_by: str
    comment: str
    starts_at: datetime
    ends_at: datetime


class AlertsView(View):
    """Alerts at one moment; ``problem`` says why they may be incomplete."""

    alerts: tuple[AlertView, ...]
    problem: str = ""


class LogSearch(View):
    """What to look for. ``text`` is plain text unless ``regex``; times are aware UTC."""

    node: str = ""
    text: str = ""
    regex: bool = False
    unit: str = ""
    filename: str = ""
    level: str = ""
    start: datetime
    end: datetime
    limit: int = 200
    backward: bool = True


class LogLine(View):
    """One line. ``ns`` is its time in Unix nanoseconds, exact, as a string."""

    ns: str
    at: datetime
    line: str
    labels: Mapping[str, str] = {}


class LogPage(View):
    """Some lines. ``query`` is the LogQL behind it; ``empty_reason`` says why there are none."""

    lines: tuple[LogLine, ...]
    query: str
    more: bool = False
    empty_reason: str = ""


class UserView(View):
    """One user."""

    id: int
    name: str
    role: str
    language: str = ""
    theme: str = ""
    must_change_password: bool = False
    disabled: bool = False
    created_at: datetime
    last_sign_in_at: datetime | None = None


class SessionView(View):
    """A signed-in session as the web layer uses it. ``csrf`` is the token forms must carry."""

    user: UserView
    csrf: str
    must_change_password: bool


class PartState(View):
    """One part of the product, looked at just now."""

    name: str
    ok: bool
    detail: str = ""
    hint: str = ""


class FleetNote(View):
    """One thing to know before a fleet run, and of which nodes."""

    text: str
    nodes: tuple[str, ...]


class FleetPlanGroup(View):
    """Nodes, by name, on which the very same would be done."""

    nodes: tuple[str, ...]
    digest: str
    resource: str
    steps: tuple[PlannedStep, ...]
    notes: tuple[FleetNote, ...] = ()
    diff: str = ""
    complete: bool = True
    approvals: int = 0
    confirm_seconds: float = 0.0


class FleetRefusal(View):
    """Nodes, by name, on which nothing would be done, and why."""

    nodes: tuple[str, ...]
    error: str
    hint: str = ""


class FleetPlanView(View):
    """What an action would do on many nodes.

    ``digest`` goes into the request that runs it. ``confirm`` is as for a single run; what is
    typed is ``phrase``. ``members`` counts the nodes that would be acted on.
    """

    digest: str
    action: str
    title: str
    summary: str
    description: str
    danger: Danger
    confirm: str
    phrase: str
    params: Mapping[str, Any]
    selector: str
    members: int
    groups: tuple[FleetPlanGroup, ...]
    refusals: tuple[FleetRefusal, ...]
    retry_of: str | None = None
    expires_at: datetime


class FleetMemberView(View):
    """One node of a fleet run; ``codes`` are its steps' exit codes."""

    node: str
    node_name: str
    wave: int
    state: MemberState
    run: str | None = None
    error: str = ""
    hint: str = ""
    codes: tuple[int | None, ...] = ()
    duration_seconds: float | None = None


class OutputGroup(View):
    """Nodes, by name, whose runs printed the same and ended alike; head and tail are kept."""

    nodes: tuple[str, ...]
    state: MemberState
    codes: tuple[int | None, ...]
    output: str
    truncated: bool = False


class FleetRunView(View):
    """One fleet run. ``counts`` are its members by state, ``wave`` the present one from 0."""

    id: str
    action: str
    title: str
    resource: str
    danger: Danger
    params: Mapping[str, Any]
    selector: str
    strategy: Strategy
    state: FleetRunState
    error: str = ""
    hint: str = ""
    actor: str
    reason: str = ""
    wave: int
    waves: int
    counts: Mapping[str, int]
    pause_until: datetime | None = None
    gate_since: datetime | None = None
    gate_told: str = ""
    cancel_requested: bool = False
    schedule: str | None = None
    retry_of: str | None = None
    created_at: datetime
    finished_at: datetime | None = None
    members: tuple[FleetMemberView, ...] = ()
    outputs: tuple[OutputGroup, ...] = ()


class Misfire(enum.StrEnum):
    """What is done about a time that came while no operator looked.

    ``skip``: nothing, once it is later than the schedule's grace · ``once``: it is made up for,
    once for all that were missed.
    """

    ONCE = "once"
    SKIP = "skip"


class ScheduleSpec(View):
    """What a schedule is to do, and when: ``cron`` (five fields) or ``every_seconds``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
    cron: Annotated[str, Field(max_length=128)] = ""
    every_seconds: Annotated[int | None, Field(ge=60, le=366 * 86_400)] = None
    timezone: Annotated[str, Field(max_length=64)] = "UTC"
    misfire: Misfire = Misfire.SKIP
    grace_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    action: Annotated[str, Field(max_length=128)]
    params: dict[str, Any] = Field(default_factory=dict)
    on: Annotated[str, Field(min_length=1, max_length=4096)]
    strategy: Strategy = Strategy()
    reason: Annotated[str, Field(max_length=500)] = ""
    enabled: bool = True


class SlotView(View):
    """One time at which a schedule was due.

    ``outcome``: ``planning`` · ``started`` (see its fleet run) · ``refused`` · ``missed``.
    """

    slot: datetime
    outcome: str
    error: str = ""
    fleet_run: str | None = None


class ScheduleView(View):
    """One schedule. It is planned when it runs, on behalf of its owner as they then are."""

    id: str
    spec: ScheduleSpec
    title: str
    danger: Danger
    owner: str
    paused_reason: str = ""
    created_at: datetime
    next_at: datetime | None = None
    upcoming: tuple[datetime, ...] = ()
    slots: tuple[SlotView, ...] = ()
