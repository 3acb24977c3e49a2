"""Tell of the busiest processes, as they change."""

from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field

from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Result, Stop, follow
from narthex_exporter.queries.process import ListParams, Process, list_processes

EVERY_SECONDS: Final = 2.0
_ROWS: Final = 25
_COMMAND_CHARACTERS: Final = 256


class TopParams(ListParams):
    """Parameters of process.top."""

    limit: Annotated[int, Field(title="At most", ge=1, le=300, strict=True)] = 100


class TopChange(Result):
    """What changed among the first processes since the last look.

    One look may come in several parts: the last of them has ``order``, the keys of all that are
    shown now, first to last, and ``total``, how many match. A key is ``pid-start_ticks``.
    """

    rows: tuple[Process, ...]
    order: tuple[str, ...] | None = None
    total: int = 0


@follow(name="process.top", title="Busiest processes, live")
def top(params: TopParams, facts: Facts, stop: Stop) -> Iterator[TopChange]:
    """Tell every two seconds which processes use most: only what changed of each."""
    told: dict[str, Process] = {}
    order: tuple[str, ...] = ()
    while True:
        found = list_processes.read(params, facts)
        now = {key_of(one): _rounded(one) for one in found.processes}
        changed = [one for key, one in now.items() if told.get(key) != one]
        if changed or tuple(now) != order:
            order = tuple(now)
            yield from _parts(changed, order, found.total)
        told = now
        if stop.wait(EVERY_SECONDS):
            return


def key_of(process: Process) -> str:
    """Name a process so that a number that is used again is another."""
    return f"{process.pid}-{process.start_ticks}"


def _rounded(process: Process) -> Process:
    """Leave out what would make each look another though nobody could see it."""
    ratio = process.cpu_ratio
    return process.model_copy(
        update={
            "cpu_ratio": None if ratio is None else round(ratio, 3),
            "cpu_seconds": round(process.cpu_seconds),
            "cmdline": process.cmdline[:_COMMAND_CHARACTERS],
        }
    )


def _parts(rows: list[Process], order: tuple[str, ...], total: int) -> Iterator[TopChange]:
    """Divide one look, so that each part is a message of less than 64 KiB."""
    while len(rows) > _ROWS:
        yield TopChange(rows=tuple(rows[:_ROWS]))
        rows = rows[_ROWS:]
    yield TopChange(rows=tuple(rows), order=order, total=total)
