"""Everything that a node can be asked about: one module a family, one line here for each."""

from typing import Any, Final

from narthex_exporter.contract.spec import Query
from narthex_exporter.queries import (
    compose,
    container,
    containerlogs,
    containerthings,
    firewall,
    host,
    port,
    process,
    service,
    supervisor,
)

MODULES: Final = (
    host,
    process,
    service,
    supervisor,
    container,
    containerlogs,
    containerthings,
    compose,
    port,
    firewall,
)

CATALOGUE: Final[dict[str, Query[Any, Any]]] = {
    value.name: value
    for module in MODULES
    for value in vars(module).values()
    if isinstance(value, Query)
}
