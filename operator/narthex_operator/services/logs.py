"""Search logs: build the LogQL here, escape strictly, say why nothing was found."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from narthex_operator.clients.loki import Entry, Loki
from narthex_operator.clients.prometheus import quoted
from narthex_operator.clients.services import RefusedRequestError
from narthex_operator.errors import InvalidError, NotFoundError, UnreachableError
from narthex_operator.services.access import Actor
from narthex_operator.services.interfaces import Nodes
from narthex_operator.services.views import LogLine, LogPage, LogSearch

MAX_LINES: Final = 2000
MAX_SPAN: Final = timedelta(days=31)
MAX_TEXT: Final = 1024
LABELS: Final = ("node", "job", "unit", "filename")
# Each level with the words that programs, journals and Loki have for it.
LEVELS: Final = {
    "debug": "debug|trace",
    "info": "info|notice",
    "warning": "warn|warning",
    "error": "err|error",
    "critical": "critical|fatal|alert|emerg",
}
_BAD_REQUEST: Final = 400
_LABELS_OVER: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogService:
    """Log search."""

    nodes: Nodes
    loki: Loki

    def search(self, actor: Actor, search: LogSearch) -> LogPage:
        """Search lines, newest first unless ``backward`` is false."""
        actor.require("log:read")
        _check(search)
        query = build_query(search)
        if search.node:
            try:
                self.nodes.get(actor, search.node)
            except NotFoundError:
                return LogPage(lines=(), query=query, empty_reason=_NO_NODE)
        try:
            found = self._ask(search, query)
        except RefusedRequestError as error:
            if error.answered == _BAD_REQUEST:
                raise InvalidError(
                    f"the log store does not understand the search: {error.said}",
                    hint="is the regular expression whole?" if search.regex else "",
                ) from error
            return LogPage(lines=(), query=query, empty_reason=str(error))
        except UnreachableError as error:
            return LogPage(lines=(), query=query, empty_reason=str(error))
        more = len(found) > search.limit
        return LogPage(
            lines=tuple(_line(entry) for entry in found[: search.limit]),
            query=query,
            more=more,
            empty_reason="" if found else self._why_nothing(search),
        )

    def label_values(self, actor: Actor, label: str, *, node: str = "") -> Sequence[str]:
        """List a label's values of the last day, for filters."""
        actor.require("log:read")
        if label not in LABELS:
            raise InvalidError(f"there is no label {label[:64]!r}", hint=", ".join(LABELS))
        now = datetime.now(UTC)
        return self.loki.label_values(
            label,
            start_ns=_ns(now - _LABELS_OVER),
            end_ns=_ns(now),
            query=f"{{node={quoted(node)}}}" if node else "",
        )

    def _ask(self, search: LogSearch, query: str, *, limit: int | None = None) -> list[Entry]:
        return self.loki.query_range(
            query,
            start_ns=_ns(search.start),
            end_ns=_ns(search.end),
            # One more than is shown tells whether there are more.
            limit=limit or search.limit + 1,
            direction="backward" if search.backward else "forward",
        )

    def _why_nothing(self, search: LogSearch) -> str:
        """Tell an empty store from a filter that nothing passes."""
        plain = LogSearch(node=search.node, start=search.start, end=search.end)
        if build_query(plain) != build_query(search):
            try:
                if self._ask(plain, build_query(plain), limit=1):
                    return "there are lines in this time, but none passes the filter"
            except UnreachableError as error:
                return str(error)
        return "no lines were received in this time"


_NO_NODE: Final = "there is no such node"


def build_query(search: LogSearch) -> str:
    """Write a search as LogQL: whatever people type stands within one quoted string."""
    chosen = {"node": search.node, "unit": search.unit, "filename": search.filename}
    matchers = [f"{name}={quoted(value)}" for name, value in chosen.items() if value]
    query = "{" + (", ".join(matchers) or 'node=~".+"') + "}"
    if search.text:
        query += f" {'|~' if search.regex else '|='} {quoted(search.text)}"
    if search.level:
        query += f" | level=~{quoted(LEVELS[search.level])}"
    return query


def _check(search: LogSearch) -> None:
    if search.start >= search.end:
        raise InvalidError("the search ends before it begins", hint="choose a later end")
    if search.end - search.start > MAX_SPAN:
        raise InvalidError(f"a search covers at most {MAX_SPAN.days} days")
    if not 1 <= search.limit <= MAX_LINES:
        raise InvalidError(f"limit must be from 1 to {MAX_LINES}")
    if search.level and search.level not in LEVELS:
        raise InvalidError(f"there is no level {search.level[:32]!r}", hint=", ".join(LEVELS))
    if max(map(len, (search.text, search.unit, search.filename, search.node))) > MAX_TEXT:
        raise InvalidError(f"a filter is at most {MAX_TEXT} characters long")


def _line(entry: Entry) -> LogLine:
    return LogLine(
        ns=str(entry.ns),
        at=datetime.fromtimestamp(entry.ns // 1000 / 1e6, UTC),
        line=entry.line,
        labels=entry.labels,
    )


def _ns(at: datetime) -> int:
    """Give Unix nanoseconds, exactly: a float would lose some."""
    return ((at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)) * 1000
