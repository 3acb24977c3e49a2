"""Everything that a node can be asked to do: one module a family, one line here for each."""

from typing import Any, Final

from narthex_exporter.actions import (
    compose,
    container,
    containercreate,
    containerexec,
    containernetwork,
    firewall,
    image,
    process,
    service,
    service_files,
    service_timers,
    supervisor,
    volume,
)
from narthex_exporter.contract.spec import Action

MODULES: Final = (
    process,
    service,
    service_files,
    service_timers,
    supervisor,
    container,
    containercreate,
    containerexec,
    image,
    volume,
    containernetwork,
    compose,
    firewall,
)

CATALOGUE: Final[dict[str, Action[Any]]] = {
    value.name: value
    for module in MODULES
    for value in vars(module).values()
    if isinstance(value, Action)
}
