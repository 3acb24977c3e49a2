"""Report memory errors that the hardware found: EDAC."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, counter
from narthex_exporter.sources.edac import Edac

_CONTROLLER = ("controller",)
_CSROW = ("controller", "csrow")
_CHANNEL = ("controller", "csrow", "channel", "dimm_label")
CORRECTABLE = counter(
    "node_edac_correctable_errors_total", "Total correctable memory errors.", _CONTROLLER
)
UNCORRECTABLE = counter(
    "node_edac_uncorrectable_errors_total", "Total uncorrectable memory errors.", _CONTROLLER
)
CSROW_CORRECTABLE = counter(
    "node_edac_csrow_correctable_errors_total",
    "Total correctable memory errors for this csrow.",
    _CSROW,
)
CSROW_UNCORRECTABLE = counter(
    "node_edac_csrow_uncorrectable_errors_total",
    "Total uncorrectable memory errors for this csrow.",
    _CSROW,
)
CHANNEL_CORRECTABLE = counter(
    "node_edac_channel_correctable_errors_total",
    "Total correctable memory errors for this channel.",
    _CHANNEL,
)
CHANNEL_UNCORRECTABLE = counter(
    "node_edac_channel_uncorrectable_errors_total",
    "Total uncorrectable memory errors for this channel.",
    _CHANNEL,
)
# What a file counts, by how many labels it has and whether the errors were correctable.
_METRICS = {
    (1, True): CORRECTABLE,
    (1, False): UNCORRECTABLE,
    (2, True): CSROW_CORRECTABLE,
    (2, False): CSROW_UNCORRECTABLE,
    (4, True): CHANNEL_CORRECTABLE,
    (4, False): CHANNEL_UNCORRECTABLE,
}


@collector(name="edac", metrics=tuple(_METRICS.values()))
def collect(node: Node) -> Iterator[Sample]:
    """Report memory errors that the hardware found: EDAC."""
    counts = node.source(Edac).counts(node.sys)
    if not counts:
        raise NoData("no memory controller here reports errors (EDAC)")
    for each in counts:
        number = node.sys.number(each.file)
        if number is not None:
            metric = _METRICS[len(each.labels), each.is_correctable]
            yield metric.at(number, *each.labels)
