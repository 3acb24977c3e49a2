"""The API, version 1: one line a route, each a thin step to a service."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from flask import request
from pydantic import AwareDatetime, Field

from narthex_operator.api.fleetruns import FLEET_ROUTES
from narthex_operator.api.routing import PREFIX, Ask, Input, Items, Output, Route
from narthex_operator.services.targets import MAX_NODES
from narthex_operator.services.views import (
    ActorView,
    AlertView,
    ApprovalRequestView,
    AuditRow,
    Chart,
    FleetAnswer,
    FleetView,
    JoinView,
    LogLine,
    LogSearch,
    NodeView,
    PartState,
    PlanView,
    RunView,
    SilenceView,
)

Name = Annotated[str, Field(max_length=256)]
# Between these an instant is a whole number of nanoseconds that 64 bits hold.
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2262, 1, 1, tzinfo=UTC)
Instant = Annotated[AwareDatetime, Field(ge=EARLIEST, le=LATEST)]


class AddNode(Input):
    """A node to add: ``address`` is ``IP:port``, where its exporter will be reached."""

    name: Name
    address: Name
    lifetime_seconds: int = Field(default=1800, ge=60, le=3600)


class LabelBody(Input):
    """What to change of a node: ``labels`` takes the place of all that it has."""

    labels: dict[str, str] | None = None
    group: Name | None = None


class ChartQuery(Input):
    """How far back charts go."""

    minutes: int = 60


class ParamsBody(Input):
    """Parameters, as the query or action declares them."""

    params: dict[str, Any] = Field(default_factory=dict)


class AskBody(Input):
    """Whom to ask, by names or ids, and the query's parameters."""

    nodes: tuple[Name, ...] = Field(min_length=1, max_length=MAX_NODES)
    params: dict[str, Any] = Field(default_factory=dict)


class RunBody(Input):
    """A run of the plan whose digest is ``plan``.

    ``run_id``, or the header ``Idempotency-Key``, is a UUIDv7 that makes a retry harmless.
    """

    params: dict[str, Any]
    plan: str
    reason: str = ""
    confirmation: str = ""
    run_id: str | None = None


class ApprovalBody(Input):
    """What is approved: the digest of the plan that was looked at."""

    plan: str


class RejectBody(Input):
    """Why a run is not to be."""

    reason: str


class CeilingBody(Input):
    """The worst danger, or ``off``, that is sent to a node, by family."""

    ceiling: dict[Annotated[str, Field(max_length=64)], str] = Field(max_length=64)


class RunQuery(Input):
    """Which runs, newest first."""

    node: Name = ""
    limit: int = Field(default=50, ge=1, le=500)


class AuditQuery(Input):
    """Which rows, newest first, before a sequence number."""

    before: int | None = Field(default=None, ge=0, le=2**63 - 1)
    limit: int = Field(default=50, ge=1, le=500)
    node: Name = ""
    event: Name = ""
    run: Name = ""


class NodeQuery(Input):
    """Of which node; of all when empty."""

    node: Name = ""


class HistoryQuery(Input):
    """Which alerts that have been, newest first."""

    node: Name = ""
    limit: int = Field(default=100, ge=1, le=1000)


class SilenceBody(Input):
    """How long to silence, and why."""

    minutes: int = Field(ge=1, le=43_200)
    comment: str = Field(min_length=1, max_length=500)


class LogQuery(Input):
    """Which lines: the last hour unless ``start`` and ``end`` say otherwise.

    Both lie from 1970 to the beginning of 2262.
    """

    node: Name = ""
    text: str = Field(default="", max_length=1024)
    regex: bool = False
    unit: Name = ""
    filename: str = Field(default="", max_length=1024)
    level: Name = ""
    start: Instant | None = None
    end: Instant | None = None
    limit: int = Field(default=200, ge=1, le=2000)
    backward: bool = True


class AuditItems(Items[AuditRow]):
    """Rows of the audit; the chain is proven up to ``verified_up_to``."""

    verified_up_to: int
    intact: bool


class AlertItems(Items[AlertView]):
    """Alerts; ``problem`` says why they may be incomplete."""

    problem: str = ""


class LogItems(Items[LogLine]):
    """Lines, the LogQL behind them, and why there are none.

    ``next`` is the ``end`` of the next page (its ``start``, where ``backward`` is false); lines
    of that very microsecond may come again.
    """

    query: str
    more: bool
    empty_reason: str


class QueryResult(Output):
    """What a query found; its shape is the query's own."""


def _nodes(ask: Ask) -> Items[NodeView]:
    return Items[NodeView](items=tuple(ask.services.nodes.list(ask.actor)))


def _add_node(ask: Ask) -> JoinView:
    body: AddNode = ask.body
    return ask.services.nodes.add(
        ask.actor,
        name=body.name,
        address=body.address,
        lifetime=timedelta(seconds=body.lifetime_seconds),
    )


def _node(ask: Ask) -> NodeView:
    return ask.services.nodes.get(ask.actor, ask.path["node"])


def _approve(ask: Ask) -> NodeView:
    return ask.services.nodes.approve(ask.actor, ask.path["node"])


def _remove(ask: Ask) -> NodeView:
    return ask.services.nodes.remove(ask.actor, ask.path["node"])


def _actor(ask: Ask) -> ActorView:
    return ask.services.runs.actor_of(ask.actor, ask.path["node"])


def _charts(ask: Ask) -> Items[Chart]:
    found = ask.services.fleet.charts(ask.actor, ask.path["node"], minutes=ask.query.minutes)
    return Items[Chart](items=tuple(found))


def _query(ask: Ask) -> QueryResult:
    found = ask.services.runs.query(ask.actor, ask.path["node"], ask.path["name"], ask.body.params)
    return _Any.model_validate(found)


def _ask_nodes(ask: Ask) -> FleetAnswer:
    body: AskBody = ask.body
    return ask.services.asking.ask(ask.actor, ask.path["name"], body.params, body.nodes)


class _Any(QueryResult, extra="allow"):
    """A result that was validated by its own declaration already."""


def _plan(ask: Ask) -> PlanView:
    return ask.services.runs.plan(ask.actor, ask.path["node"], ask.path["name"], ask.body.params)


def _submit(ask: Ask) -> RunView:
    body: RunBody = ask.body
    return ask.services.runs.submit(
        ask.actor,
        ask.path["node"],
        ask.path["name"],
        body.params,
        plan=body.plan,
        reason=body.reason,
        confirmation=body.confirmation,
        run_id=body.run_id or request.headers.get("Idempotency-Key"),
    )


def _runs(ask: Ask) -> Items[RunView]:
    found = ask.services.runs.list(ask.actor, node=ask.query.node, limit=ask.query.limit)
    return Items[RunView](items=tuple(found))


def _run(ask: Ask) -> RunView:
    return ask.services.runs.get(ask.actor, ask.path["run"])


def _cancel(ask: Ask) -> RunView:
    return ask.services.runs.cancel(ask.actor, ask.path["run"])


def _approvals(ask: Ask) -> Items[ApprovalRequestView]:
    return Items[ApprovalRequestView](items=tuple(ask.services.approvals.list(ask.actor)))


def _approval(ask: Ask) -> ApprovalRequestView:
    return ask.services.approvals.get(ask.actor, ask.path["run"])


def _approve_run(ask: Ask) -> RunView:
    return ask.services.approvals.approve(ask.actor, ask.path["run"], plan=ask.body.plan)


def _withdraw(ask: Ask) -> RunView:
    return ask.services.approvals.withdraw(ask.actor, ask.path["run"])


def _reject(ask: Ask) -> RunView:
    return ask.services.approvals.reject(ask.actor, ask.path["run"], reason=ask.body.reason)


def _ceiling(ask: Ask) -> NodeView:
    return ask.services.nodes.set_ceiling(ask.actor, ask.path["node"], ceiling=ask.body.ceiling)


def _audit(ask: Ask) -> AuditItems:
    wanted: AuditQuery = ask.query
    page = ask.services.audit.list(
        ask.actor,
        before=wanted.before,
        limit=wanted.limit,
        node=wanted.node,
        event=wanted.event,
        run=wanted.run,
    )
    return AuditItems(
        items=page.rows,
        next=page.next_before,
        verified_up_to=page.verified_up_to,
        intact=page.intact,
    )


def _alerts(ask: Ask) -> AlertItems:
    found = ask.services.alerts.current(ask.actor, node=ask.query.node)
    return AlertItems(items=found.alerts, problem=found.problem)


def _history(ask: Ask) -> AlertItems:
    wanted: HistoryQuery = ask.query
    found = ask.services.alerts.history(ask.actor, node=wanted.node, limit=wanted.limit)
    return AlertItems(items=found.alerts, problem=found.problem)


def _silence(ask: Ask) -> SilenceView:
    return ask.services.alerts.silence(
        ask.actor,
        ask.path["alert"],
        duration=timedelta(minutes=ask.body.minutes),
        comment=ask.body.comment,
    )


def _unsilence(ask: Ask) -> None:
    ask.services.alerts.unsilence(ask.actor, ask.path["silence"])


def _logs(ask: Ask) -> LogItems:
    wanted: LogQuery = ask.query
    end = wanted.end or datetime.now(UTC)
    page = ask.services.logs.search(
        ask.actor,
        LogSearch(
            **wanted.model_dump(exclude={"start", "end"}),
            start=wanted.start or max(EARLIEST, end - timedelta(hours=1)),
            end=end,
        ),
    )
    last = page.lines[-1].at if page.more and page.lines else None
    # Instants here know microseconds, lines nanoseconds: rather one line twice than one lost.
    step = timedelta(microseconds=1) if wanted.backward else timedelta()
    return LogItems(
        items=page.lines,
        next=(last + step).isoformat() if last else None,
        query=page.query,
        more=page.more,
        empty_reason=page.empty_reason,
    )


def _label_values(ask: Ask) -> Items[str]:
    found = ask.services.logs.label_values(ask.actor, ask.path["label"], node=ask.query.node)
    return Items[str](items=tuple(found))


def _fleet(ask: Ask) -> FleetView:
    return ask.services.fleet.overview(ask.actor)


def _parts(ask: Ask) -> Items[PartState]:
    return Items[PartState](items=tuple(ask.services.fleet.parts(ask.actor)))


def _label(ask: Ask) -> NodeView:
    body: LabelBody = ask.body
    return ask.services.nodes.label(
        ask.actor, ask.path["node"], labels=body.labels, group=body.group
    )


ROUTES: Final = (
    *FLEET_ROUTES,
    Route(name="nodes", method="GET", rule="/nodes", permission="node:read", tag="nodes",
          summary="List nodes.", call=_nodes, reply=Items[NodeView]),
    Route(name="add_node", method="POST", rule="/nodes", permission="node:write", tag="nodes",
          summary="Add a node and make its one-time join token.", call=_add_node,
          body=AddNode, reply=JoinView, status=201,
          location=lambda join: f"{PREFIX}/nodes/{join.node.id}"),
    Route(name="node", method="GET", rule="/nodes/<node>", permission="node:read", tag="nodes",
          summary="Show a node, by name or id.", call=_node, reply=NodeView),
    Route(name="remove_node", method="DELETE", rule="/nodes/<node>", permission="node:write",
          tag="nodes", summary="Refuse a node's certificate and stop its scrape.", call=_remove,
          reply=NodeView),
    Route(name="label_node", method="PATCH", rule="/nodes/<node>", permission="node:write",
          tag="nodes", summary="Give a node other labels, or another group.", call=_label,
          body=LabelBody, reply=NodeView),
    Route(name="approve_node", method="POST", rule="/nodes/<node>/approve",
          permission="node:write", tag="nodes", summary="Let actions reach a node.",
          call=_approve, reply=NodeView),
    Route(name="set_ceiling", method="PUT", rule="/nodes/<node>/ceiling",
          permission="node:write", tag="nodes", summary="Narrow what is sent to a node.",
          call=_ceiling, body=CeilingBody, reply=NodeView),
    Route(name="actor", method="GET", rule="/nodes/<node>/actor", permission="node:read",
          tag="nodes", summary="Tell what can be done on a node.", call=_actor, reply=ActorView),
    Route(name="charts", method="GET", rule="/nodes/<node>/charts", permission="node:read",
          tag="nodes", summary="Give a node's charts.", call=_charts, query=ChartQuery,
          reply=Items[Chart]),
    Route(name="query", method="POST", rule="/nodes/<node>/queries/<name>",
          permission="node:read", tag="queries", summary="Ask a node.", call=_query,
          body=ParamsBody, reply=QueryResult),
    Route(name="ask", method="POST", rule="/queries/<name>", permission="node:read",
          tag="queries", summary="Ask many nodes, and group equal answers.", call=_ask_nodes,
          body=AskBody, reply=FleetAnswer),
    Route(name="plan", method="POST", rule="/nodes/<node>/actions/<name>/plans",
          permission="node:read", tag="actions", summary="Tell what an action would do.",
          call=_plan, body=ParamsBody, reply=PlanView),
    Route(name="submit", method="POST", rule="/nodes/<node>/actions/<name>/runs",
          permission="node:read", tag="actions", summary="Run a planned action.", call=_submit,
          body=RunBody, reply=RunView, status=202,
          location=lambda run: f"{PREFIX}/runs/{run.id}"),
    Route(name="runs", method="GET", rule="/runs", permission="run:read", tag="runs",
          summary="List runs, newest first.", call=_runs, query=RunQuery, reply=Items[RunView]),
    Route(name="run", method="GET", rule="/runs/<run>", permission="run:read", tag="runs",
          summary="Show a run, asking its node where it has not ended.", call=_run,
          reply=RunView),
    Route(name="cancel", method="DELETE", rule="/runs/<run>", permission="run:read", tag="runs",
          summary="Ask a run to stop.", call=_cancel, reply=RunView, status=202),
    Route(name="approvals", method="GET", rule="/approvals", permission="run:read",
          tag="approvals", summary="List what waits for approval, then what was decided last.",
          call=_approvals, reply=Items[ApprovalRequestView]),
    Route(name="approval", method="GET", rule="/runs/<run>/approval", permission="run:read",
          tag="approvals", summary="Show a run with its plan, and whether you can approve it.",
          call=_approval, reply=ApprovalRequestView),
    Route(name="approve_run", method="POST", rule="/runs/<run>/approval",
          permission="run:read", tag="approvals", summary="Approve a run; no API token can.",
          call=_approve_run, body=ApprovalBody, reply=RunView),
    Route(name="withdraw_approval", method="DELETE", rule="/runs/<run>/approval",
          permission="run:read", tag="approvals", summary="Take your approval back.",
          call=_withdraw, reply=RunView),
    Route(name="reject_run", method="POST", rule="/runs/<run>/reject", permission="run:read",
          tag="approvals", summary="Reject a run that waits for approval.", call=_reject,
          body=RejectBody, reply=RunView),
    Route(name="audit", method="GET", rule="/audit", permission="audit:read", tag="audit",
          summary="Show the audit, newest first.", call=_audit, query=AuditQuery,
          reply=AuditItems),
    Route(name="alerts", method="GET", rule="/alerts", permission="alert:read", tag="alerts",
          summary="List alerts that fire, are pending or silenced.", call=_alerts,
          query=NodeQuery, reply=AlertItems),
    Route(name="alert_history", method="GET", rule="/alerts/history", permission="alert:read",
          tag="alerts", summary="List alerts that have been.", call=_history,
          query=HistoryQuery, reply=AlertItems),
    Route(name="silence", method="POST", rule="/alerts/<alert>/silence",
          permission="alert:silence", tag="alerts", summary="Silence an alert by its labels.",
          call=_silence, body=SilenceBody, reply=SilenceView, status=201),
    Route(name="unsilence", method="DELETE", rule="/silences/<silence>",
          permission="alert:silence", tag="alerts", summary="End a silence.", call=_unsilence,
          status=204),
    Route(name="logs", method="GET", rule="/logs", permission="log:read", tag="logs",
          summary="Search logs.", call=_logs, query=LogQuery, reply=LogItems),
    Route(name="label_values", method="GET", rule="/logs/labels/<label>", permission="log:read",
          tag="logs", summary="List the values of a log label.", call=_label_values,
          query=NodeQuery, reply=Items[str]),
    Route(name="fleet", method="GET", rule="/fleet", permission="node:read", tag="fleet",
          summary="Show every node's figures.", call=_fleet, reply=FleetView),
    Route(name="parts", method="GET", rule="/parts", permission="node:read", tag="fleet",
          summary="Look at every part of the product.", call=_parts, reply=Items[PartState]),
)  # fmt: skip
