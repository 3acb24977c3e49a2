"""Report whether SELinux guards this machine."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import Node, Sample, collector, gauge
from narthex_exporter.sources.security import selinux

ENABLED = gauge("node_selinux_enabled", "SELinux is enabled, 1 is true, 0 is false")
CONFIG_MODE = gauge("node_selinux_config_mode", "Configured SELinux enforcement mode")
CURRENT_MODE = gauge("node_selinux_current_mode", "Current SELinux enforcement mode")


@collector(name="selinux", metrics=(ENABLED, CONFIG_MODE, CURRENT_MODE))
def collect(node: Node) -> Iterator[Sample]:
    """Report whether SELinux guards this machine: 1 enforces, 0 only logs, -1 is off."""
    found = selinux(node.proc, node.sys, node.paths)
    yield ENABLED.at(int(found is not None))
    if found is not None:
        yield CONFIG_MODE.at(found.configured)
        yield CURRENT_MODE.at(found.current)
