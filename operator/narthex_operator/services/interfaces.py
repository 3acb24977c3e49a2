"""What each service promises. Pages, API and command line know services by these alone.

Each method takes the Actor first and checks permission itself; it raises the errors of
``narthex_operator.errors``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from narthex_exporter.transport.websocket import WebSocket
from narthex_operator.services.access import Actor
from narthex_operator.services.strategy import Strategy
from narthex_operator.services.views import (
    ActorView,
    AlertsView,
    ApprovalRequestView,
    AuditPage,
    Chart,
    FleetAnswer,
    FleetPlanView,
    FleetRunView,
    FleetView,
    JoinView,
    LivePermit,
    LogPage,
    LogSearch,
    NodeView,
    PartState,
    PlanView,
    RunView,
    ScheduleSpec,
    ScheduleView,
    SessionView,
    SilenceView,
    UserView,
)


class Accounts(Protocol):
    """Users, sessions, API tokens."""

    def sign_in(self, name: str, password: str, *, address: str, user_agent: str) -> str:
        """Return a new session's token. Raises NotSignedInError or LimitedError."""
        ...

    def session(
        self, token: str, *, address: str, touch: bool = True
    ) -> tuple[Actor, SessionView]:
        """Look a session up; without ``touch`` it grows idle. Raises NotSignedInError."""
        ...

    def sign_out(self, token: str) -> None:
        """End a session; no error when it has ended already."""
        ...

    def change_password(self, actor: Actor, token: str, *, old: str, new: str) -> str:
        """Change one's own password; ends every other session and returns this one's new token."""
        ...

    def set_preferences(self, actor: Actor, *, language: str, theme: str) -> None:
        """Keep one's own language (``en``, ``ru``, empty: browser) and theme (``light``, …)."""
        ...

    def authenticate_token(self, bearer: str, *, address: str) -> Actor:
        """Tell whose API token this is. Raises NotSignedInError."""
        ...

    def users(self, actor: Actor) -> Sequence[UserView]:
        """List users (permission ``user:read``)."""
        ...

    def add_user(self, actor: Actor, *, name: str, role: str, password: str | None) -> str:
        """Add a user (``user:write``); returns the first password, which must be changed."""
        ...

    def reset_password(self, actor: Actor, *, name: str) -> str:
        """Give a user a new first password (``user:write``) and end their sessions."""
        ...

    def unlock(self, actor: Actor, *, name: str) -> None:
        """Forget a user's failed sign-ins (``user:write``)."""
        ...

    def create_token(self, actor: Actor, *, name: str, role: str, lifetime: timedelta) -> str:
        """Make an API token (``token:write``); it is shown this once."""
        ...


class Nodes(Protocol):
    """Nodes and their enrolment."""

    def list(self, actor: Actor) -> Sequence[NodeView]:
        """List nodes that are not removed (``node:read``)."""
        ...

    def get(self, actor: Actor, ref: str) -> NodeView:
        """Find a node by name or id (``node:read``). Raises NotFoundError."""
        ...

    def add(self, actor: Actor, *, name: str, address: str, lifetime: timedelta) -> JoinView:
        """Add a node and make its one-time join token (``node:write``).

        ``address`` is ``IP:port``, where operator and Prometheus will reach its exporter.
        """
        ...

    def approve(self, actor: Actor, ref: str) -> NodeView:
        """Let actions reach an enrolled node (``node:write``)."""
        ...

    def set_ceiling(self, actor: Actor, ref: str, *, ceiling: Mapping[str, str]) -> NodeView:
        """Narrow what is sent to a node (``node:write``): the worst danger, or ``off``, by family.

        Families that are not named are not narrowed; the node's own policy judges after it.
        """
        ...

    def remove(self, actor: Actor, ref: str) -> NodeView:
        """Refuse a node's certificate and stop its scrape; history stays (``node:write``)."""
        ...

    def label(
        self,
        actor: Actor,
        ref: str,
        *,
        labels: Mapping[str, str] | None = None,
        group: str | None = None,
    ) -> NodeView:
        """Give a node other labels (all of them), another group, or both (``node:write``)."""
        ...


class Fleet(Protocol):
    """Figures from Prometheus."""

    def overview(self, actor: Actor) -> FleetView:
        """Show every node now (``node:read``); never waits longer than 3 s for Prometheus."""
        ...

    def charts(self, actor: Actor, ref: str, *, minutes: int) -> Sequence[Chart]:
        """Give one node's charts (``node:read``): cpu, memory, disk, network, load."""
        ...

    def parts(self, actor: Actor) -> Sequence[PartState]:
        """Look at every part of the product (``node:read``)."""
        ...


class Runs(Protocol):
    """Queries and actions on nodes."""

    def actor_of(self, actor: Actor, ref: str) -> ActorView:
        """Tell what can be done on a node (``node:read``); never raises for a node that is off."""
        ...

    def query(
        self, actor: Actor, ref: str, name: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Ask a node (``query:<name>``); the reply is validated by our declaration."""
        ...

    def plan(self, actor: Actor, ref: str, name: str, params: Mapping[str, Any]) -> PlanView:
        """Ask a node what an action would do (``action:<name>`` at its danger)."""
        ...

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
        """Run a planned action (``action:<name>`` at its danger).

        ``plan`` is the shown plan's digest, ``confirmation`` the typed resource where danger
        asks for it, ``run_id`` a caller's UUIDv7 that makes a retry harmless. The audit row is
        written before anything is sent. Returns at once: look again with ``get``.
        """
        ...

    def get(self, actor: Actor, run_id: str) -> RunView:
        """Show one run (``run:read``), asking its node where it is not final."""
        ...

    def list(self, actor: Actor, *, node: str = "", limit: int = 50) -> Sequence[RunView]:
        """List runs, newest first (``run:read``)."""
        ...

    def cancel(self, actor: Actor, run_id: str) -> RunView:
        """Cancel a run (needs what running it needs); one that was not sent yet never is."""
        ...


class Approvals(Protocol):
    """What more than one person must answer for: runs in the state ``unapproved``.

    API tokens and schedules cannot approve, nor whoever asked for the run. Of an approval and
    a cancellation at once one wins. Who lost the permission until the run is sent does not count.
    """

    def waiting(self, actor: Actor) -> int:
        """Count what waits for this actor's approval; zero for who may see no runs."""
        ...

    def list(self, actor: Actor) -> Sequence[ApprovalRequestView]:
        """List what waits, oldest first, then what was decided last (``run:read``)."""
        ...

    def get(self, actor: Actor, run_id: str) -> ApprovalRequestView:
        """Show one run with its plan, and whether this actor can approve it (``run:read``)."""
        ...

    def approve(self, actor: Actor, run_id: str, *, plan: str) -> RunView:
        """Approve a run (needs what running it needs, and a person who is signed in).

        ``plan`` is the digest of the plan that was looked at. With enough approvals it is sent.
        """
        ...

    def withdraw(self, actor: Actor, run_id: str) -> RunView:
        """Take one's own approval back, before the run is sent."""
        ...

    def reject(self, actor: Actor, run_id: str, *, reason: str) -> RunView:
        """End a run that waits (needs what running it needs): it becomes ``cancelled``."""
        ...


class Asking(Protocol):
    """Queries to many nodes at once."""

    def ask(
        self, actor: Actor, name: str, params: Mapping[str, Any], refs: Sequence[str]
    ) -> FleetAnswer:
        """Ask nodes, by names or ids (``query:<name>``), and group equal answers.

        An empty list, or one node in it that is unknown, named twice or may not be acted on,
        refuses the whole before anybody is asked.
        """
        ...


class FleetRuns(Protocol):
    """One action over many nodes, in waves."""

    def targets(self, actor: Actor, on: str) -> Sequence[str]:
        """Name the nodes that a selector means (``node:read``)."""
        ...

    def plan(
        self,
        actor: Actor,
        name: str,
        params: Mapping[str, Any],
        *,
        on: str = "",
        nodes: Sequence[str] = (),
    ) -> FleetPlanView:
        """Ask every node that is meant what would be done (``action:<name>`` at its danger).

        A selector (``on``) or a list of nodes that means none, or one that is unknown, named
        twice or may not be acted on, refuses the whole before anybody is asked.
        """
        ...

    def submit(
        self,
        actor: Actor,
        *,
        plan: str,
        strategy: Strategy,
        reason: str = "",
        confirmation: str = "",
        leave_out_refused: bool = False,
        fleet_run_id: str | None = None,
    ) -> FleetRunView:
        """Start what was shown to this very person (``action:<name>`` at its danger).

        ``plan`` is the plan's digest, ``fleet_run_id`` a caller's UUIDv7 that makes a retry
        harmless. Returns at once: look again with ``get``.
        """
        ...

    def get(self, actor: Actor, fleet_run_id: str) -> FleetRunView:
        """Show one fleet run with its members and their outputs (``run:read``)."""
        ...

    def list(self, actor: Actor, *, limit: int = 50) -> Sequence[FleetRunView]:
        """List fleet runs without their members, newest first (``run:read``)."""
        ...

    def cancel(self, actor: Actor, fleet_run_id: str) -> FleetRunView:
        """Begin nothing more, and ask what runs to stop (needs what running it needs)."""
        ...

    def resume(self, actor: Actor, fleet_run_id: str, *, skip_gate: bool = False) -> FleetRunView:
        """Let a halted one go on, its gate asked anew or skipped (needs what running needs)."""
        ...

    def plan_retry(self, actor: Actor, fleet_run_id: str) -> FleetPlanView:
        """Plan the same again for the nodes that failed (needs what running it needs)."""
        ...


class Schedules(Protocol):
    """What is done over and over."""

    def list(self, actor: Actor) -> Sequence[ScheduleView]:
        """List schedules by name (``schedule:read``)."""
        ...

    def get(self, actor: Actor, ref: str) -> ScheduleView:
        """Show one schedule, by id or name, with its last times (``schedule:read``)."""
        ...

    def add(self, actor: Actor, spec: ScheduleSpec) -> ScheduleView:
        """Add a schedule (``schedule:write``, and the action, at most disruptive)."""
        ...

    def change(self, actor: Actor, ref: str, spec: ScheduleSpec) -> ScheduleView:
        """Change a schedule, which becomes one's own (as ``add``)."""
        ...

    def remove(self, actor: Actor, ref: str) -> None:
        """Remove a schedule; what it ran stays (``schedule:write``)."""
        ...

    def run_now(self, actor: Actor, ref: str) -> ScheduleView:
        """Have it done now, as its owner (``schedule:write``, and the action)."""
        ...


class Audit(Protocol):
    """The operator's ledger."""

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
        """Show rows, newest first (``audit:read``)."""
        ...


class Live(Protocol):
    """What nodes tell live, and terminals on them."""

    def ticket(self, actor: Actor, ref: str, name: str, params: Mapping[str, Any]) -> str:
        """Let a session open one stream, once, within 30 s (``query:<name>``, ``action:<name>``).

        Raises DeniedError, InvalidError, NotFoundError, and ConflictError where the node cannot.
        """
        ...

    def redeem(self, actor: Actor, ticket: str) -> LivePermit:
        """Spend a ticket. Raises DeniedError where it is not this session's, is spent or late."""
        ...

    def check(self, actor: Actor, permit: LivePermit) -> None:
        """Look again whether it may be. Raises DeniedError or ConflictError."""
        ...

    def open(self, actor: Actor, permit: LivePermit) -> WebSocket:
        """Open the stream at its node; a terminal's row is in the ledger before."""
        ...

    def ended(self, actor: Actor, permit: LivePermit, *, seconds: float, why: str) -> None:
        """Write down that a terminal has ended."""
        ...


class Alerts(Protocol):
    """Alerts, their history and silences."""

    def current(self, actor: Actor, *, node: str = "") -> AlertsView:
        """List alerts that fire, are pending or silenced (``alert:read``)."""
        ...

    def history(self, actor: Actor, *, node: str = "", limit: int = 100) -> AlertsView:
        """List alerts that have been, newest first (``alert:read``)."""
        ...

    def receive(self, payload: Mapping[str, Any]) -> int:
        """Take Alertmanager's webhook (version 4); returns how many alerts it told of."""
        ...

    def silence(
        self, actor: Actor, alert_id: str, *, duration: timedelta, comment: str
    ) -> SilenceView:
        """Silence one alert by its labels (``alert:silence``)."""
        ...

    def unsilence(self, actor: Actor, silence_id: str) -> None:
        """End a silence (``alert:silence``)."""
        ...


class Logs(Protocol):
    """Log search, by the same client that talks to real Loki."""

    def search(self, actor: Actor, search: LogSearch) -> LogPage:
        """Search lines (``log:read``); the LogQL is built here, with strict escaping."""
        ...

    def label_values(self, actor: Actor, label: str, *, node: str = "") -> Sequence[str]:
        """List a label's values (``log:read``), for filters."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All of them: what pages and API views are given."""

    accounts: Accounts
    nodes: Nodes
    fleet: Fleet
    runs: Runs
    asking: Asking
    approvals: Approvals
    fleet_runs: FleetRuns
    schedules: Schedules
    audit: Audit
    alerts: Alerts
    logs: Logs
    live: Live
