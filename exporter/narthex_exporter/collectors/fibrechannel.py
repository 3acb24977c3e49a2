"""Report Fibre Channel host ports."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.readings import Meaning, Reading, present, remembered, samples
from narthex_exporter.collectors.spec import Node, Sample, collector, counter, gauge

_FOLDER: Final = "class/fc_host"
# What a driver says of what it does not count.
_UNKNOWN: Final = 2**64 - 1


def _meaning(name: str, text: str) -> Meaning:
    return Meaning(counter(f"node_fibrechannel_{name}_total", f"{text}.", ("fc_host",)))


# The statistics of the kernel's fc_host class, as drivers/scsi/scsi_transport_fc.c names them.
MEANINGS: Final = {
    "dumped_frames": _meaning("dumped_frames", "Number of dumped frames"),
    "error_frames": _meaning("error_frames", "Number of errors in frames"),
    "fcp_packet_aborts": _meaning("fcp_packet_aborts", "Number of aborted packets"),
    "invalid_crc_count": _meaning("invalid_crc", "Invalid Cyclic Redundancy Check count"),
    "invalid_tx_word_count": _meaning(
        "invalid_tx_words", "Number of invalid words transmitted by host port"
    ),
    "link_failure_count": _meaning(
        "link_failure", "Number of times the host port link has failed"
    ),
    "loss_of_signal_count": _meaning("loss_of_signal", "Number of times signal has been lost"),
    "loss_of_sync_count": _meaning(
        "loss_of_sync", "Number of failures on either bit or transmission word boundaries"
    ),
    "nos_count": _meaning(
        "nos", "Number Not_Operational Primitive Sequence received by host port"
    ),
    "rx_frames": _meaning("rx_frames", "Number of frames received"),
    "rx_words": _meaning("rx_words", "Number of words received by host port"),
    "seconds_since_last_reset": _meaning(
        "seconds_since_last_reset", "Number of seconds since last host port reset"
    ),
    "tx_frames": _meaning("tx_frames", "Number of frames transmitted by host port"),
    "tx_words": _meaning("tx_words", "Number of words transmitted by host port"),
}
WORDS: Final = (
    *("speed", "port_state", "port_type", "port_id", "port_name", "fabric_name"),
    *("symbolic_name", "supported_classes", "supported_speeds", "dev_loss_tmo"),
)
# These the kernel writes with 0x before them.
_HEXADECIMAL: Final = frozenset({"fabric_name", "port_id", "port_name"})
INFO: Final = gauge(
    "node_fibrechannel_info",
    "Non-numeric data from /sys/class/fc_host/<host>, value is always 1.",
    ("fc_host", *WORDS),
)


@collector(
    name="fibrechannel",
    metrics=(*(meaning.metric for meaning in MEANINGS.values()), INFO),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report Fibre Channel host ports."""
    for host, readings in remembered(node, "Fibre Channel", lambda: _find(node)):
        words = {word: node.sys.text(f"{_FOLDER}/{host}/{word}") for word in WORDS}
        if any(word is not None for word in words.values()):
            yield INFO.at(1, host, *(_shown(word, text or "") for word, text in words.items()))
        if words["port_state"] in {None, "Unknown"}:
            # A port in no known state has counted nothing; node_exporter says so with noughts.
            for meaning in MEANINGS.values():
                yield meaning.metric.at(0, host)
            continue
        for sample in samples(node.sys, readings):
            if sample.value != _UNKNOWN:
                yield sample


def _find(node: Node) -> list[tuple[str, list[Reading]]] | None:
    names = node.sys.devices(_FOLDER)
    if names is None:
        return None
    return [
        (name, present(node.sys, f"{_FOLDER}/{name}/statistics", MEANINGS, (name,)))
        for name in names
    ]


def _shown(word: str, text: str) -> str:
    return text[2:] if word in _HEXADECIMAL and len(text) > 2 else text  # noqa: PLR2004 - 0x
