"""What services return: typed values for pages, API and command line alike.

Text that came from a node (names of processes, log lines, outputs) is hostile wherever it
stands; pages escape it, nothing renders it. Instants are aware UTC, durations seconds, shares
ratios from 0 to 1. ``None`` means "not known", which is never shown as zero or as well.
"""

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, computed_field

from narthex_exporter.contract.spec import Danger
from narthex_exporter.contract.wire import PlanReply, RunState, StepRecord


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
    fingerprint: str = ""
    added_at: datetime
    enrolled_at: datetime | None = None
    certificate_not_after: datetime | None = None
    actor_instance: str = ""


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

    ``terminal`` tells an action that opens one from what is only followed; ``reason`` is why it
    is opened.
    """

    node: NodeView
    name: str
    params: Mapping[str, Any]
    actor: str
    session: str
    terminal: bool = False
    reason: str = ""


class RunView(View):
    """One run, as far as is known here; ``danger`` is by our catalogue, not by the node's word."""

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


class PlanView(View):
    """A plan with what the panel must ask before it runs.

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
