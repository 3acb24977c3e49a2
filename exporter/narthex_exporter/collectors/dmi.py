"""Report what the firmware says of the machine: vendor, model, serial numbers."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources.dmi import FILES, Dmi

INFO = gauge(
    "node_dmi_info",
    f"A metric with a constant '1' value labeled by {', '.join(FILES)} if provided by DMI.",
    tuple(FILES),
)


@collector(name="dmi", metrics=(INFO,))
def collect(node: Node) -> Iterator[Sample]:
    """Report what the firmware says of the machine: vendor, model, serial numbers."""
    words = node.source(Dmi).get()
    if not any(words):
        raise NoData("this machine's firmware tells nothing (DMI)")
    # To Prometheus a label that is empty is a label that is absent.
    yield INFO.at(1, *words)
