"""Run migrations on the connection that ``upgrade`` hands over."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from narthex_operator.db import models
from narthex_operator.db.base import Base, Instant


def _render(kind: str, value: Any, context_: AutogenContext) -> str | Literal[False]:
    if kind == "type" and isinstance(value, Instant):
        context_.imports.add("from narthex_operator.db.base import Instant")
        return "Instant()"
    return False


assert models.__all__  # noqa: S101 - the models must be imported for Base to know them

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=True,
    render_item=_render,
)
with context.begin_transaction():
    context.run_migrations()
