"""Search the logs of the fleet or of one node."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from flask import request
from flask_babel import lazy_gettext

from narthex_operator.errors import OperatorError
from narthex_operator.services.views import LogLine, LogPage, LogSearch
from narthex_panel.node_frame import frame
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.text import clean, matches

page: Final = Page(
    name="logs",
    title=lazy_gettext("Logs"),
    permission="log:read",
    rule="/logs",
    icon="file-text",
    nav=True,
)

RANGES: Final = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
}
LEVELS: Final = ("critical", "error", "warning", "info", "debug")
LIMIT: Final = 200
_MICROSECOND: Final = timedelta(microseconds=1)
_TEXT_CHARACTERS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What is searched for, as it stands in the address."""

    node: str = ""
    text: str = ""
    regex: bool = False
    unit: str = ""
    level: str = ""
    range: str = "1h"
    before: str = ""
    """The last line's nanoseconds, and how many lines with just those were shown."""

    def address(self, path: str, **changes: Any) -> str:
        """Write the address of this search with some changes."""
        values = {
            "node": self.node,
            "q": self.text,
            "regex": "1" if self.regex else "",
            "unit": self.unit,
            "level": self.level,
            "range": self.range,
            **changes,
        }
        return f"{path}?{urlencode({key: value for key, value in values.items() if value})}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownLine:
    """One line for the page: its parts, each with whether it matches."""

    at: datetime
    parts: Sequence[tuple[str, bool]]
    node: str
    source: str
    level: str


@page.get("/logs")
def show(ui: Ui) -> Answer:
    """Search the whole fleet, or the node that the filter names."""
    return _answer(ui, _filters(), None)


@page.get("/nodes/<ref>/logs")
def of_node(ui: Ui, ref: str) -> Answer:
    """Search one node."""
    around = frame(ui, ref, "logs")
    return _answer(ui, _filters(node=around.node.name), around)


def _answer(ui: Ui, filters: Filters, around: Any) -> Answer:
    found, problem = LogPage(lines=(), query=""), None
    try:
        found = ui.services.logs.search(ui.actor, _search(filters))
    except OperatorError as error:
        problem = error
    lines = after_cursor(found.lines, filters.before)
    values: dict[str, Any] = {
        "frame": around,
        "filters": filters,
        "found": found,
        "lines": [_shown(line, filters) for line in lines],
        "older": _older(around, filters, lines) if found.more and lines else "",
        "problem": problem,
    }
    if ui.is_fragment and filters.before:
        return ui.render("log_lines.html", **values)
    return ui.render(
        "logs.html",
        nodes=[one.name for one in ui.services.nodes.list(ui.actor)] if not around else [],
        units=_values(ui, "unit", filters.node),
        levels=LEVELS,
        ranges=tuple(RANGES),
        **values,
    )


def after_cursor(lines: Sequence[LogLine], cursor: str) -> list[LogLine]:
    """Drop what was shown already: lines may share a nanosecond, the search ends on a microsecond.

    ``cursor`` is ``<ns>.<count>``: the oldest shown line's time, how many of that time were shown.
    """
    ns, _, count = cursor.partition(".")
    if not ns.isdecimal() or not count.isdecimal():
        return list(lines)
    older = [line for line in lines if int(line.ns) < int(ns)]
    same = [line for line in lines if line.ns == ns]
    return [*same[int(count) :], *older]


def _filters(node: str = "") -> Filters:
    wanted = request.args
    return Filters(
        node=node or wanted.get("node", ""),
        text=wanted.get("q", "")[:_TEXT_CHARACTERS],
        regex=wanted.get("regex") == "1",
        unit=wanted.get("unit", ""),
        level=wanted.get("level", "") if wanted.get("level") in LEVELS else "",
        range=wanted.get("range", "") if wanted.get("range") in RANGES else "1h",
        before=wanted.get("before", ""),
    )


def _search(filters: Filters) -> LogSearch:
    now = datetime.now(tz=UTC)
    ns = filters.before.partition(".")[0]
    known = ns.isdecimal() and len(ns) <= 19  # noqa: PLR2004 - digits of 2**63
    end = datetime.fromtimestamp(int(ns) / 1e9, tz=UTC) + 2 * _MICROSECOND if known else now
    return LogSearch(
        node=filters.node,
        text=filters.text,
        regex=filters.regex,
        unit=filters.unit,
        level=filters.level,
        start=now - RANGES[filters.range],
        end=end,
        limit=LIMIT,
    )


def _older(around: Any, filters: Filters, lines: Sequence[LogLine]) -> str:
    last = lines[-1].ns
    count = sum(line.ns == last for line in lines)
    before_ns, _, before_count = filters.before.partition(".")
    if before_ns == last and before_count.isdecimal():
        count += int(before_count)
    path = f"/nodes/{around.node.name}/logs" if around else "/logs"
    node = "" if around else filters.node
    return filters.address(path, before=f"{last}.{count}", node=node)


def _shown(line: LogLine, filters: Filters) -> ShownLine:
    text = clean(line.line, 4096)
    return ShownLine(
        at=line.at,
        parts=[(text, False)] if filters.regex else matches(text, filters.text),
        node=line.labels.get("node", ""),
        source=line.labels.get("unit") or line.labels.get("filename", ""),
        level=line.labels.get("level") or line.labels.get("detected_level", ""),
    )


def _values(ui: Ui, label: str, node: str) -> Sequence[str]:
    try:
        return ui.services.logs.label_values(ui.actor, label, node=node)
    except OperatorError:
        return ()  # the search itself tells why
