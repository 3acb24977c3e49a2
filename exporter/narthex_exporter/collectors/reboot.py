"""Report whether the machine waits for a reboot."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import Node, Sample, collector, gauge
from narthex_exporter.sources.kernels import Kernels, is_newest
from narthex_exporter.sources.rpm import Rpm

REQUIRED = gauge("node_reboot_required", "Node reboot is required for software updates.")
NEWEST = gauge(
    "narthex_kernel_running_is_newest",
    "Whether no newer kernel of the same flavour is installed than the one that runs.",
)
# On Debian and its kin packages ask for a reboot with this file; nothing there means no.
_MARKS: Final = ("/run/reboot-required", "/var/run/reboot-required")


@collector(name="reboot", metrics=(REQUIRED, NEWEST), every_seconds=60)
def collect(node: Node) -> Iterator[Sample]:
    """Report whether the machine waits for a reboot.

    On machines of the RPM family, where no package leaves a mark, a newer kernel asks for it.
    """
    newest = is_newest(
        node.proc.text("sys/kernel/osrelease").strip(), node.source(Kernels).installed()
    )
    if newest is not None:
        yield NEWEST.at(int(newest))
    marked = any(node.paths.rooted(path).exists() for path in _MARKS)
    asked = newest is False and bool(node.source(Rpm).databases())
    yield REQUIRED.at(int(marked or asked))
