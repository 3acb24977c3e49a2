"""Tell what a systemd unit logs, as it logs it."""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Annotated, Final

from pydantic import AwareDatetime, Field

from narthex_exporter.actions.service import NEEDS, UnitName
from narthex_exporter.bucket import Bucket
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts, JournalLine
from narthex_exporter.contract.spec import QueryParams, Result, Stop, follow

BURST: Final = 1000
LINES_PER_SECOND: Final = 200
# Forty lines and 16 KiB of text make a message of less than 64 KiB, whatever is escaped in it.
_LINES: Final = 40
_TEXT_BYTES: Final = 16 * 1024


class JournalParams(QueryParams):
    """Parameters of service.journal."""

    unit: UnitName
    lines: Annotated[
        int, Field(title="Lines before", description="To begin with.", ge=0, le=500, strict=True)
    ] = 100
    after: Annotated[
        str,
        Field(
            title="After",
            description="A cursor of an earlier stream, to go on behind it.",
            pattern=r"^[A-Za-z0-9=;]{0,256}$",
        ),
    ] = ""


class Line(Result):
    """One line: hostile text. ``priority`` is syslog's, 0 emergency to 7 debug."""

    at: AwareDatetime
    priority: int | None
    identifier: str
    pid: int | None
    text: str


class JournalPart(Result):
    """Some lines, oldest first.

    ``dropped`` counts lines that came faster than they may be told, since the part before;
    ``cursor`` is where to go on.
    """

    lines: tuple[Line, ...]
    dropped: int = 0
    cursor: str = ""


@follow(name="service.journal", title="A service's journal, live", needs=NEEDS)
def journal(params: JournalParams, facts: Facts, stop: Stop) -> Iterator[JournalPart]:
    """Tell what one systemd unit logs: at most 200 lines a second, and how many were left out."""
    if facts.units.get(params.unit) is None:
        raise RefusedError(
            f"there is no unit {params.unit} on this node", hint="check the name in Services"
        )
    lines = facts.units.follow(params.unit, lines=params.lines, after=params.after, stop=stop)
    yield from told(lines, Bucket(BURST, LINES_PER_SECOND).take)


def told(lines: Iterator[JournalLine | None], admit: Callable[[], bool]) -> Iterator[JournalPart]:
    """Gather lines into parts, counting those that ``admit`` leaves out."""
    found: list[Line] = []
    size = dropped = 0
    cursor = ""
    for line in lines:
        if line is not None:
            cursor = line.cursor
            if admit():
                found.append(_shown(line))
                size += len(line.text.encode())
            else:
                dropped += 1
        whole = line is None or len(found) >= _LINES or size >= _TEXT_BYTES
        if whole and (found or dropped):
            yield JournalPart(lines=tuple(found), dropped=dropped, cursor=cursor)
            found, size, dropped = [], 0, 0


def _shown(line: JournalLine) -> Line:
    return Line(
        at=dt.datetime.fromtimestamp(line.at_seconds, tz=dt.UTC),
        priority=line.priority,
        identifier=line.identifier,
        pid=line.pid,
        text=line.text,
    )
