"""Report which flaws of the processor there are, and what is done about them."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.readings import remembered
from narthex_exporter.collectors.spec import Node, Sample, collector, gauge

_FOLDER: Final = "devices/system/cpu/vulnerabilities"
# How the kernel begins what it says: Documentation/ABI/testing/sysfs-devices-system-cpu.
_STATES: Final = ("not affected", "vulnerable", "mitigation", "unknown")
INFO: Final = gauge(
    "node_cpu_vulnerabilities_info",
    "Details of each CPU vulnerability reported by sysfs; the state is in a label.",
    ("codename", "state", "mitigation"),
)


@collector(name="cpu_vulnerabilities", metrics=(INFO,), enabled=False)
def collect(node: Node) -> Iterator[Sample]:
    """Report which flaws of the processor there are, and what is done about them."""
    for name in remembered(node, "known flaws", lambda: node.sys.devices(_FOLDER)):
        text = node.sys.text(f"{_FOLDER}/{name}")
        if text is not None:
            yield INFO.at(1, name, *_parse(text))


def _parse(text: str) -> tuple[str, str]:
    """Give state and mitigation: all that follows the first word, or else the whole."""
    lower = text.lower()
    for state in _STATES:
        if lower.startswith(state):
            return state, "" if state == _STATES[0] else " ".join(text.split()[1:])
    return "unknown", text
