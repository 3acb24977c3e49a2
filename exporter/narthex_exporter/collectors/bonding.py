"""Report how many devices a bond has, and how many of them work."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge

_FOLDER: Final = "class/net"
SLAVES: Final = gauge(
    "node_bonding_slaves", "Number of configured slaves per bonding interface.", ("master",)
)
ACTIVE: Final = gauge(
    "node_bonding_active", "Number of active slaves per bonding interface.", ("master",)
)


@collector(name="bonding", metrics=(SLAVES, ACTIVE))
def collect(node: Node) -> Iterator[Sample]:
    """Report how many devices a bond has, and how many of them work."""
    masters = node.sys.text(f"{_FOLDER}/bonding_masters")
    if masters is None:
        raise NoData("this kernel has no bonding")
    for master in masters.split():
        slaves = node.sys.text(f"{_FOLDER}/{master}/bonding/slaves")
        if slaves is not None:
            states = [_state(node, master, slave) for slave in slaves.split()]
            yield SLAVES.at(len(states), master)
            yield ACTIVE.at(states.count("up"), master)


def _state(node: Node, master: str, slave: str) -> str | None:
    # Before Linux 3.14 the link was called slave_<name>.
    for link in ("lower", "slave"):
        state = node.sys.text(f"{_FOLDER}/{master}/{link}_{slave}/bonding_slave/mii_status")
        if state is not None:
            return state
    return None
