"""Report how memory is used."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import Node, Sample, collector, gauges

BYTES = gauges("node_memory_{field}_bytes", "Memory information field {field}_bytes.")
PAGES = gauges("node_memory_{field}", "Memory information field {field}.")


@collector(name="meminfo", metrics=(BYTES, PAGES))
def collect(node: Node) -> Iterator[Sample]:
    """Report how memory is used."""
    for name, number, kilobytes in node.proc.meminfo():
        field = name.replace("(", "_").replace(")", "")
        if kilobytes:
            yield BYTES.named(field=field).at(number * 1024)
        else:
            yield PAGES.named(field=field).at(number)
