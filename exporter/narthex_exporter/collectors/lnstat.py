"""Report what the network caches counted, in /proc/net/stat."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import Family, Kind, NoData, Node, Sample, collector
from narthex_exporter.sources.netcounters import caches, parse_cache

FIELD = Family(
    "node_lnstat_{field}_total",
    Kind.COUNTER,
    "linux network cache stats",
    ("subsystem", "cpu"),
)


@collector(name="lnstat", metrics=(FIELD,), enabled=False)
def collect(node: Node) -> Iterator[Sample]:
    """Report what the network caches counted, in /proc/net/stat."""
    try:
        files = list(caches(node.proc))
    except OSError as error:
        raise NoData("this kernel shows no /proc/net/stat") from error
    for subsystem, text in files:
        for field, row, number in parse_cache(text):
            yield FIELD.named(field=field).at(number, subsystem, str(row))
