"""Everything that a node can be asked to do: one module a family, one line here for each."""

from typing import Any, Final

from narthex_exporter.actions import firewall, process, service
from narthex_exporter.contract.spec import Action

MODULES: Final = (firewall, process, service)

CATALOGUE: Final[dict[str, Action[Any]]] = {
    value.name: value
    for module in MODULES
    for value in vars(module).values()
    if isinstance(value, Action)
}
