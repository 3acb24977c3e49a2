"""Report how many control groups each subsystem has."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge

_SUBSYSTEM = ("subsys_name",)
CGROUPS = gauge("node_cgroups_cgroups", "Current cgroup number of the subsystem.", _SUBSYSTEM)
ENABLED = gauge("node_cgroups_enabled", "Whether the cgroup subsystem is enabled.", _SUBSYSTEM)
_WORDS: Final = 4


@collector(name="cgroups", metrics=(CGROUPS, ENABLED), enabled=False)
def collect(node: Node) -> Iterator[Sample]:
    """Report how many control groups each subsystem has."""
    try:
        lines = node.proc.text("cgroups").splitlines()
    except FileNotFoundError as error:
        raise NoData("this kernel has no control groups, or version 2 only") from error
    for line in lines:
        words = line.split()
        if len(words) >= _WORDS and not line.startswith("#"):
            yield CGROUPS.at(int(words[2]), words[0])
            yield ENABLED.at(int(words[3]), words[0])
