"""Tell what containers write, as they write it."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Final

from pydantic import Field

from narthex_exporter.actions.containerparams import NEEDS, ContainerName, Engine, EngineName
from narthex_exporter.bucket import Bucket
from narthex_exporter.contract.containerfacts import LogFact
from narthex_exporter.contract.errors import NarthexError, RefusedError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import QueryParams, Result, Stop, follow
from narthex_exporter.queries.containerlogs import Line, merged, shown

BURST: Final = 1000
LINES_PER_SECOND: Final = 200
# Each container costs a thread that reads, for as long as somebody listens.
_MOST_CONTAINERS: Final = 8
# What came within this time is told together, ordered by time over all containers.
_GATHER_SECONDS: Final = 0.25
# How long after its end a container is looked at again: it may have been started anew.
_AGAIN_SECONDS: Final = 2.0
# What was written meanwhile is read from the log's end: to look for a moment from its beginning
# takes an engine minutes. More than a burst, so that lines which are not even read are never
# left out without some that are counted.
_MEANWHILE_LINES: Final = 5000
_JOIN_SECONDS: Final = 1.0
# Forty lines and 16 KiB of text make a message of less than 64 KiB, whatever is escaped in it.
_LINES: Final = 40
_TEXT_BYTES: Final = 16 * 1024
# What may wait for a listener who takes it in slowly.
_WAITING_BYTES: Final = 1 << 20

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LogParams(QueryParams):
    """Parameters of container.logs, followed."""

    engine: Engine = EngineName.DOCKER
    containers: Annotated[
        tuple[ContainerName, ...],
        Field(title="Containers", min_length=1, max_length=_MOST_CONTAINERS),
    ]
    lines: Annotated[
        int, Field(title="Lines before", description="Of all.", ge=0, le=500, strict=True)
    ] = 100
    after: Annotated[
        dict[ContainerName, Seconds],
        Field(
            title="After",
            description="An earlier stream's cursor, to go on behind it.",
            max_length=_MOST_CONTAINERS,
        ),
    ] = {}  # noqa: RUF012 # pydantic copies it


class LogPart(Result):
    """Some lines of all containers, oldest first.

    ``dropped`` counts lines that came faster than they may be told, since the part before (those
    that an engine threw away, or that came while nobody listened, may be more);
    ``cursor`` is where to go on: the Unix time of each container's last line.
    """

    lines: tuple[Line, ...]
    dropped: int = 0
    cursor: dict[str, float]


@follow(name="container.logs", title="Containers' logs, live", needs=NEEDS)
def logs(params: LogParams, facts: Facts, stop: Stop) -> Iterator[LogPart]:
    """Tell what containers write: at most 200 lines a second, and how many were left out.

    A container that ends is waited for: what it writes once it runs again is told too.
    """
    names = tuple(dict.fromkeys(params.containers))
    for name in names:
        if facts.containers.get(params.engine, name) is None:
            raise RefusedError(
                f"there is no container {name} in {params.engine}",
                hint="check the name in Containers",
            )
    cursor = {name: params.after.get(name, 0.0) for name in names}
    new = tuple(name for name in names if not cursor[name])
    cursor |= dict.fromkeys(new, time.time())
    before: tuple[Line, ...] = ()
    if new and params.lines:
        before = merged(facts, params.engine, new, lines=params.lines).lines
        cursor |= {one.container: one.at.timestamp() for one in before if one.at}
    yield from _parts(before, 0, cursor, {}, even_empty=True)

    read = _each_run(facts, params.engine)
    gathered = Gathered(read, Bucket(BURST, LINES_PER_SECOND).take)
    with gathered.reading(cursor):
        while not stop.wait(_GATHER_SECONDS):
            lines, dropped, reached = gathered.take()
            # A stable sort: lines of one moment stay in the order in which they were written.
            lines.sort(key=lambda one: one.at_seconds)
            yield from _parts(tuple(map(shown, lines)), dropped, cursor, reached)
            cursor |= reached


Read = Callable[[str, float, Callable[[], bool]], Iterator[LogFact]]


def _each_run(facts: Facts, engine: EngineName) -> Read:
    """Give what reads on behind a moment: to a container's end, and then only a newer run."""
    seen: dict[str, tuple[str, float]] = {}

    def read(name: str, since_seconds: float, cancelled: Callable[[], bool]) -> Iterator[LogFact]:
        found = facts.containers.get(engine, name)
        if found is None:
            return
        run = found.id, found.started_seconds
        if found.is_up or seen.get(name) != run:
            seen[name] = run
            yield from facts.containers.follow_logs(
                engine, name,
                lines=_MEANWHILE_LINES, since_seconds=since_seconds, cancelled=cancelled,
            )  # fmt: skip

    return read


class Gathered:
    """Lines of several containers, each read by a thread: bounded, what is left out is counted."""

    def __init__(self, read: Read, admit: Callable[[], bool]) -> None:
        self._read = read
        self._admit = admit
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._lines: list[LogFact] = []
        self._size = self._dropped = 0
        self._reached: dict[str, float] = {}
        self._error: NarthexError | None = None

    @contextlib.contextmanager
    def reading(self, since: Mapping[str, float]) -> Iterator[None]:
        """Read behind each container's moment, in Unix time, until left."""
        threads = [
            threading.Thread(target=self._follow, args=one, name="follow-logs", daemon=True)
            for one in since.items()
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            until = time.monotonic() + _JOIN_SECONDS
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))

    def take(self) -> tuple[list[LogFact], int, dict[str, float]]:
        """Take what came, how many lines were left out, and the Unix time of each one's last.

        Raises why an engine gives no more, once all that it gave is taken.
        """
        with self._lock:
            taken = self._lines, self._dropped, dict(self._reached)
            self._lines, self._size, self._dropped = [], 0, 0
            if self._error is not None and not taken[0]:
                raise self._error
            return taken

    def _follow(self, name: str, since: float) -> None:
        try:
            while not self._over.is_set():
                behind = since
                for line in self._read(name, behind, self._over.is_set):
                    # The engine tells the moment's own lines again.
                    if not line.at_seconds or line.at_seconds > behind:
                        since = max(since, line.at_seconds)
                        self._put(line, since)
                self._over.wait(_AGAIN_SECONDS)
        except NarthexError as error:
            with self._lock:
                self._error = error

    def _put(self, line: LogFact, reached: float) -> None:
        size = len(line.text.encode())
        with self._lock:
            self._reached[line.container] = reached
            if self._size + size <= _WAITING_BYTES and self._admit():
                self._lines.append(line)
                self._size += size
            else:
                self._dropped += 1


def _parts(
    lines: tuple[Line, ...],
    dropped: int,
    cursor: Mapping[str, float],
    reached: Mapping[str, float],
    *,
    even_empty: bool = False,
) -> Iterator[LogPart]:
    """Divide lines, so that each part is a message of less than 64 KiB.

    Each part's cursor is behind its own lines: a stream that is cut goes on there.
    """
    at = dict(cursor)
    found: list[Line] = []
    size = 0
    for line in lines:
        found.append(line)
        size += len(line.text.encode())
        if line.at:
            at[line.container] = max(at[line.container], line.at.timestamp())
        if len(found) >= _LINES or size >= _TEXT_BYTES:
            yield LogPart(lines=tuple(found), cursor=dict(at))
            found, size = [], 0
    if found or dropped or even_empty:
        yield LogPart(lines=tuple(found), dropped=dropped, cursor=at | dict(reached))
