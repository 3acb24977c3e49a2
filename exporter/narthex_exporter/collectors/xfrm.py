"""Report packets that IPsec could not transform."""

import re
from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, counter

# The kernel's Documentation/networking/xfrm/xfrm_proc.rst.
_TEXTS: Final = {
    "InError": "All errors not matched by other",
    "InBufferError": "No buffer is left",
    "InHdrError": "Header error",
    "InNoStates": "No state is found: inbound SPI, address, or protocol is wrong",
    "InStateProtoError": "Transformation protocol specific error",
    "InStateModeError": "Transformation mode specific error",
    "InStateSeqError": "Sequence number is out of window",
    "InStateExpired": "State is expired",
    "InStateMismatch": "State has mismatch option",
    "InStateInvalid": "State is invalid",
    "InTmplMismatch": "No matching template for states",
    "InNoPols": "No policy is found for states",
    "InPolBlock": "Policy discards",
    "InPolError": "Policy error",
    "OutError": "All errors not matched by other",
    "OutBundleGenError": "Bundle generation error",
    "OutBundleCheckError": "Bundle check error",
    "OutNoStates": "No state is found",
    "OutStateProtoError": "Transformation protocol specific error",
    "OutStateModeError": "Transformation mode specific error",
    "OutStateSeqError": "Sequence number overflow",
    "OutStateExpired": "State is expired",
    "OutPolBlock": "Policy discards",
    "OutPolDead": "Policy is dead",
    "OutPolError": "Policy error",
    "FwdHdrError": "Forward routing of a packet is not allowed",
    "OutStateInvalid": "State is invalid, perhaps expired",
    "AcquireError": "State has not been fully acquired before use",
}


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


COUNTS: Final = {
    f"Xfrm{name}": counter(f"node_xfrm_{_snake(name)}_packets_total", f"{text}.")
    for name, text in _TEXTS.items()
}


@collector(name="xfrm", metrics=tuple(COUNTS.values()), enabled=False)
def collect(node: Node) -> Iterator[Sample]:
    """Report packets that IPsec could not transform."""
    try:
        counts = node.proc.xfrm_stat()
    except FileNotFoundError as error:
        raise NoData("this kernel does not count what IPsec did") from error
    for name, metric in COUNTS.items():
        if name in counts:
            yield metric.at(counts[name])
