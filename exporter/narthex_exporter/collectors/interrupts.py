"""Report interrupts by source and CPU."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import (
    Node,
    Sample,
    collector,
    counter,
    name_filter,
    switch_option,
)
from narthex_exporter.sources.interrupts import parse_interrupts

TOTAL = counter("node_interrupts_total", "Interrupt details.", ("cpu", "type", "info", "devices"))
NAMES = name_filter("name", "Interrupts, as <type>;<info>;<devices>,", include=".*")
ZEROS = switch_option("include-zeros", "Report those that never came.", default=True)


@collector(name="interrupts", metrics=(TOTAL,), enabled=False, options=(*NAMES.options, ZEROS))
def collect(node: Node) -> Iterator[Sample]:
    """Report interrupts by source and CPU."""
    zeros = node.setting(ZEROS)
    for each in parse_interrupts(node.proc.text("interrupts")):
        if node.wanted(NAMES, f"{each.kind};{each.info};{each.devices}"):
            for cpu, count in each.counts:
                if count or zeros:
                    yield TOTAL.at(count, cpu, each.kind, each.info, each.devices)
