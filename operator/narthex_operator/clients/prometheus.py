"""Ask Prometheus for figures, rules, targets and pending alerts."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import AwareDatetime, Field

from narthex_operator.clients.exchange import Bounds, Endpoint
from narthex_operator.clients.services import Message, Service

_PATH: Final = "/api/v1"


class _Instant(Message):
    metric: dict[str, str]
    value: tuple[float, str]


class _InstantData(Message):
    result: tuple[_Instant, ...] | tuple[float, str]


class _InstantReply(Message):
    data: _InstantData


class _Range(Message):
    metric: dict[str, str]
    values: tuple[tuple[float, str], ...]


class _RangeData(Message):
    result: tuple[_Range, ...]


class _RangeReply(Message):
    data: _RangeData


class RuleAlert(Message):
    """An alert that Prometheus itself tells of: ``state`` is ``pending`` or ``firing``."""

    labels: dict[str, str]
    annotations: dict[str, str] = Field(default_factory=dict)
    state: str
    activeAt: AwareDatetime  # noqa: N815 - Prometheus' own name


class _AlertsData(Message):
    alerts: tuple[RuleAlert, ...]


class _AlertsReply(Message):
    data: _AlertsData


class Target(Message):
    """A target that Prometheus scrapes; ``health`` is ``up``, ``down`` or ``unknown``."""

    labels: dict[str, str]
    health: str
    lastError: str = ""  # noqa: N815 - Prometheus' own name


class _TargetsData(Message):
    activeTargets: tuple[Target, ...]  # noqa: N815 - Prometheus' own name


class _TargetsReply(Message):
    data: _TargetsData


class RuleGroup(Message):
    """A group of rules, as evaluated. ``rules`` are Prometheus' own documents."""

    name: str
    file: str
    rules: tuple[dict[str, Any], ...] = ()


class _RulesData(Message):
    groups: tuple[RuleGroup, ...]


class _RulesReply(Message):
    data: _RulesData


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value with its labels; ``at`` is Unix seconds."""

    labels: Mapping[str, str]
    value: float
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One series with its labels; pairs of Unix seconds and value, in order."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A client. Every method raises UnreachableError."""

    service: Service

    def instant(self, query: str, *, seconds: float = 3.0) -> list[Sample]:
        """Evaluate a query now, within some seconds; a scalar is a sample without labels."""
        reply = self.service.get(
            f"{_PATH}/query",
            {"query": query, "timeout": f"{seconds:g}s"},
            kind=_InstantReply,
            seconds=seconds,
        )
        return [
            Sample(labels=row.metric, at=row.value[0], value=_number(row.value[1]))
            for row in _rows(reply.data.result)
        ]

    def range(
        self, query: str, *, start: float, end: float, step: float, seconds: float = 5.0
    ) -> list[Samples]:
        """Evaluate a query over time. ``start``, ``end`` are Unix seconds, ``step`` seconds."""
        reply = self.service.get(
            f"{_PATH}/query_range",
            {
                "query": query,
                "start": f"{start:.3f}",
                "end": f"{end:.3f}",
                "step": f"{step:g}",
                "timeout": f"{seconds:g}s",
            },
            kind=_RangeReply,
            seconds=seconds,
        )
        return [
            Samples(
                labels=row.metric, points=tuple((at, float(value)) for at, value in row.values)
            )
            for row in reply.data.result
        ]

    def alerts(self) -> tuple[RuleAlert, ...]:
        """List alerts that are pending or firing."""
        return self.service.get(f"{_PATH}/alerts", kind=_AlertsReply).data.alerts

    def targets(self) -> tuple[Target, ...]:
        """List what is scraped."""
        reply = self.service.get(f"{_PATH}/targets", {"state": "active"}, kind=_TargetsReply)
        return reply.data.activeTargets

    def rules(self) -> tuple[RuleGroup, ...]:
        """List the rules that are evaluated."""
        return self.service.get(f"{_PATH}/rules", kind=_RulesReply).data.groups

    def check(self) -> None:
        """Raise UnreachableError unless it is ready."""
        self.service.call("GET", "/-/ready", seconds=2.0)


def _rows(result: tuple[_Instant, ...] | tuple[float, str]) -> Iterator[_Instant]:
    for row in result:
        if isinstance(row, _Instant):
            yield row
    if len(result) == 2 and not isinstance(result[0], _Instant):  # noqa: PLR2004 - a scalar's
        yield _Instant(metric={}, value=(result[0], str(result[1])))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # PromQL knows strings: they are no figures


def quoted(text: str) -> str:
    """Quote a string for PromQL and LogQL, which read Go's strings.

    Go knows JSON's escapes but no surrogate pairs: what is not ASCII stays as it is.
    """
    whole = text.encode("utf-8", "replace").decode()
    return json.dumps(whole, ensure_ascii=False)


def prometheus_client(url: str) -> Prometheus:
    """Make a client for the Prometheus at a base URL."""
    return Prometheus(
        service=Service(name="Prometheus", url=url, endpoint=Endpoint.of(url), bounds=Bounds())
    )
