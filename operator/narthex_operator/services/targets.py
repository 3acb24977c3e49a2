"""Resolve the nodes that a request names to those that it may reach: all of them, or none."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sqlalchemy import or_, select

from narthex_exporter.contract.wire import FieldError
from narthex_operator.clients.node import NodeRef
from narthex_operator.db import Database
from narthex_operator.db.models import Node
from narthex_operator.errors import ConflictError, DeniedError, InvalidError
from narthex_operator.security.chain import clean
from narthex_operator.services.access import Actor
from narthex_operator.services.delivery import refusal
from narthex_operator.services.run_rows import ref_of

# The signer's limit for one subject is made for so many.
MAX_NODES: Final = 1000
_SHOWN: Final = 5


def resolve(database: Database, actor: Actor, refs: Sequence[str]) -> tuple[NodeRef, ...]:
    """Find nodes by name or id, in the order of ``refs`` (``node:read``).

    There is no wildcard. One that is unknown, named twice or not to be acted on refuses the
    whole: raises InvalidError, DeniedError or ConflictError, and nothing of the rest is told.
    """
    actor.require("node:read")
    if not refs:
        raise _invalid("at least one node must be named")
    if len(refs) > MAX_NODES:
        raise _invalid(f"at most {MAX_NODES} nodes at once, not {len(refs)}")
    known = _known(database, refs)
    unknown = [ref for ref in refs if ref not in known]
    if unknown:
        # The same words for what is not there and what one may not see.
        raise DeniedError(
            f"there is no node that you may ask by the name of {_listed(unknown)}",
            hint="nobody was asked: correct the list and try again",
        )
    found = [known[ref] for ref in refs]
    twice = [node.name for node, count in Counter(found).items() if count > 1]
    if twice:
        raise _invalid(f"named more than once: {_listed(twice)}")
    reasons = [why for node in found if (why := refusal(node))]
    if reasons:
        raise ConflictError(
            f"{'; '.join(reasons[:_SHOWN])}{_and_more(reasons)}",
            hint="nobody was asked: leave them out, or approve them on their pages",
        )
    return tuple(ref_of(node) for node in found)


def _known(database: Database, refs: Sequence[str]) -> dict[str, Node]:
    """Find what each ref means: a name among the present nodes, or an id."""
    wanted = set(refs)
    query = select(Node).where(
        Node.removed_at.is_(None), or_(Node.name.in_(wanted), Node.id.in_(wanted))
    )
    with database.reading() as session:
        nodes = list(session.scalars(query))
        session.expunge_all()
    # A name comes before an id, as where one node is asked for.
    return {node.id: node for node in nodes} | {node.name: node for node in nodes}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(clean(name, limit=64) for name in names[:_SHOWN]) + _and_more(names)


def _and_more(all_of_them: Sequence[str]) -> str:
    more = len(all_of_them) - _SHOWN
    return f" and {more} more" if more > 0 else ""


def _invalid(message: str) -> InvalidError:
    return InvalidError(
        f"nodes: {message}",
        errors=(FieldError(path="nodes", message=message),),
        hint="nobody was asked: correct the list and try again",
    )
