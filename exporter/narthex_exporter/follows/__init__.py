"""Everything that a node tells live: one module a family, one line here for each."""

from typing import Any, Final

from narthex_exporter.contract.spec import Follow
from narthex_exporter.follows import container, process, service

MODULES: Final = (container, process, service)

CATALOGUE: Final[dict[str, Follow[Any, Any]]] = {
    value.name: value
    for module in MODULES
    for value in vars(module).values()
    if isinstance(value, Follow)
}
