"""Turn what nodes tell live into what a page shows: rows are rendered here, escaped as ever."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from flask import render_template
from pydantic import BaseModel

from narthex_exporter.contract.wire import StreamMessage
from narthex_exporter.follows import CATALOGUE
from narthex_exporter.follows.container import LogPart
from narthex_exporter.follows.process import TopChange, key_of
from narthex_exporter.follows.service import JournalPart
from narthex_operator.services.views import LivePermit
from narthex_panel.conversation import Reader, problem
from narthex_panel.node_frame import blocked
from narthex_panel.page import Ui
from narthex_panel.pages.processes import ACTIONS

# A message holds 64 KiB; escaped JSON of rendered rows is longer than the rows.
_PART_CHARACTERS: Final = 24 * 1024


def reader_of(ui: Ui, permit: LivePermit) -> Callable[[], Reader]:
    """Give what makes the reader of a stream, once the stream is to begin."""
    make = _MAKERS[permit.name]
    declared = CATALOGUE[permit.name]

    def begin() -> Reader:
        show = make(ui, permit)

        def read(message: str) -> Iterator[str]:
            told = StreamMessage.model_validate_json(message)
            if told.problem is not None:
                yield problem(told.problem.detail or told.problem.title, told.problem.hint)
            if told.data is not None:
                yield from show(declared.result.model_validate(told.data))

        return read

    return begin


def _processes(ui: Ui, permit: LivePermit) -> Callable[[BaseModel], Iterable[str]]:
    acts = blocked(ui, ui.services.runs.actor_of(ui.actor, permit.node.id), ACTIONS)

    def show(change: BaseModel) -> Iterator[str]:
        if not isinstance(change, TopChange):
            raise ValueError("not a change of processes")  # noqa: TRY004
        rows: list[str] = []
        for one in change.rows:
            rows.append(
                render_template(
                    "panel/processes_row.html",
                    one=one.model_dump(mode="json"),
                    key=key_of(one),
                    node=permit.node,
                    blocked=acts,
                )
            )
            if sum(map(len, rows)) > _PART_CHARACTERS:
                yield _json({"rows": rows})
                rows = []
        yield _json({"rows": rows, "order": change.order, "total": change.total})

    return show


def _lines(_ui: Ui, _permit: LivePermit) -> Callable[[BaseModel], Iterable[str]]:
    def show(part: BaseModel) -> Iterator[str]:
        if not isinstance(part, JournalPart | LogPart):
            raise ValueError("not a part of a log")  # noqa: TRY004
        yield part.model_dump_json()

    return show


_MAKERS: Final[dict[str, Callable[[Ui, LivePermit], Callable[[BaseModel], Iterable[str]]]]] = {
    "container.logs": _lines,
    "process.top": _processes,
    "service.journal": _lines,
}


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
