"""Ask many nodes the same, and lay what they answer side by side."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from narthex_exporter.contract.spec import Catalogue
from narthex_operator.clients.node import Asker, NodeClient, NodeRef
from narthex_operator.db import Database
from narthex_operator.errors import NotFoundError, OperatorError, UnreachableError
from narthex_operator.services.access import Actor
from narthex_operator.services.runs import validated
from narthex_operator.services.targets import resolve
from narthex_operator.services.views import AnswerGroup, FleetAnswer, NodeFailure

SECONDS: Final = 30.0
PARALLEL: Final = 64
# What the different answers may take together: each node chooses how much it says.
MAX_BYTES: Final = 32 << 20
_TEXT: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingService:
    """Implements ``interfaces.Asking``.

    No manifest is fetched before: a query changes nothing, and a node whose release does not
    know it, or one of its parameters, refuses it itself.
    """

    database: Database
    client: NodeClient
    catalogue: Catalogue
    seconds: float = SECONDS
    parallel: int = PARALLEL
    max_bytes: int = MAX_BYTES

    def ask(
        self, actor: Actor, name: str, params: Mapping[str, Any], refs: Sequence[str]
    ) -> FleetAnswer:
        """Ask nodes (``query:<name>``); a node that does not answer costs its own answer."""
        query = self.catalogue.queries.get(name)
        if query is None:
            raise NotFoundError(f"there is no query {name[:100]!r}", hint="see the catalogue")
        actor.require(query.permission)
        asked = validated(query.params, params).model_dump(mode="json")
        nodes = resolve(self.database, actor, refs)
        began = time.monotonic()
        heard = _Heard(self.max_bytes)
        for node, answer in self.client.query_many(
            nodes,
            Asker(id=actor.id, session=actor.session),
            name,
            asked,
            query.result,
            parallel=self.parallel,
            seconds=self.seconds,
        ):
            heard.note(node, answer)
        return FleetAnswer(
            query=name,
            asked=len(nodes),
            groups=heard.groups(),
            failures=tuple(sorted(heard.failures, key=lambda one: one.node_name)),
            seconds=round(time.monotonic() - began, 3),
        )


@dataclass(slots=True)
class _Heard:
    """The answers so far. Equal ones are kept once."""

    room: int
    failures: list[NodeFailure] = field(default_factory=list)
    _names: dict[str, list[str]] = field(default_factory=dict)

    def note(self, node: NodeRef, answer: BaseModel | OperatorError) -> None:
        """Take an answer, or why there is none."""
        if isinstance(answer, OperatorError):
            self.failures.append(_failure(node, answer))
            return
        text = json.dumps(answer.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        if text not in self._names:
            if len(text) > self.room:
                error = UnreachableError(
                    "the answers are too large together: this one is left out",
                    hint="ask fewer nodes at once",
                )
                self.failures.append(_failure(node, error))
                return
            self.room -= len(text)
        self._names.setdefault(text, []).append(node.name)

    def groups(self) -> tuple[AnswerGroup, ...]:
        """Give each different answer with who gave it: what most say first."""
        ordered = sorted(self._names.items(), key=lambda one: (-len(one[1]), min(one[1])))
        return tuple(
            AnswerGroup(nodes=tuple(sorted(names)), result=json.loads(text))
            for text, names in ordered
        )


def _failure(node: NodeRef, error: OperatorError) -> NodeFailure:
    return NodeFailure(
        node=node.id,
        node_name=node.name,
        kind=error.kind[:64],
        error=str(error)[:_TEXT],
        hint=error.hint[:_TEXT],
    )
