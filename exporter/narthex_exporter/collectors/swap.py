"""Report swap devices and files."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources.memory import parse_swaps

_LABELS = ("device", "swap_type")
SIZE = gauge("node_swap_size_bytes", "Swap device size in bytes.", _LABELS)
USED = gauge("node_swap_used_bytes", "Swap device used in bytes.", _LABELS)
PRIORITY = gauge("node_swap_priority", "Swap device priority.", _LABELS)


@collector(name="swap", metrics=(SIZE, USED, PRIORITY))
def collect(node: Node) -> Iterator[Sample]:
    """Report swap devices and files."""
    try:
        text = node.proc.text("swaps")
    except FileNotFoundError as error:
        raise NoData("this kernel cannot swap") from error
    for swap in parse_swaps(text):
        yield SIZE.at(swap.size_bytes, swap.device, swap.kind)
        yield USED.at(swap.used_bytes, swap.device, swap.kind)
        yield PRIORITY.at(swap.priority, swap.device, swap.kind)
