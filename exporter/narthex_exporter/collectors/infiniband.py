"""Report InfiniBand and RoCE ports: their state, their traffic, their errors."""

from collections.abc import Iterator, Mapping
from typing import Final

from narthex_exporter.collectors.readings import Meaning, Reading, present, remembered, samples
from narthex_exporter.collectors.spec import Node, Sample, collector, counter, gauge, name_filter

_FOLDER: Final = "class/infiniband"
_LABELS: Final = ("device", "port")
# The architecture counts data in words of four octets.
_WORD: Final = 4
_GIGABIT: Final = 125_000_000
INFO: Final = gauge(
    "node_infiniband_info",
    "Non-numeric data from /sys/class/infiniband/<device>, value is always 1.",
    ("device", "board_id", "firmware_version", "hca_type"),
)
STATE: Final = gauge(
    "node_infiniband_state_id",
    "State of the InfiniBand port"
    " (0: no change, 1: down, 2: init, 3: armed, 4: active, 5: act defer).",
    _LABELS,
)
PHYSICAL: Final = gauge(
    "node_infiniband_physical_state_id",
    "Physical state of the InfiniBand port (0: no change, 1: sleep, 2: polling, 3: disable,"
    " 4: shift, 5: link up, 6: link error recover, 7: phytest).",
    _LABELS,
)
RATE: Final = gauge(
    "node_infiniband_rate_bytes_per_second", "Maximum signal transfer rate.", _LABELS
)


def _counts(*rows: tuple[str, str, str]) -> dict[str, Meaning]:
    return {
        attribute: Meaning(
            counter(f"node_infiniband_{name}_total", f"{text}.", _LABELS),
            _WORD if name.endswith("_bytes") else 1,
        )
        for attribute, name, text in rows
    }


# By the folder below a port, as the kernel's Documentation/ABI/stable/sysfs-class-infiniband has
# them; hw_counters are the driver's own.
MEANINGS: Final[Mapping[str, Mapping[str, Meaning]]] = {
    "counters": _counts(
        ("VL15_dropped", "vl15_dropped", "Number of incoming VL15 packets dropped"),
        (
            "excessive_buffer_overrun_errors",
            "excessive_buffer_overrun_errors",
            "Number of times that buffers overran for too many flow control periods",
        ),
        ("link_downed", "link_downed", "Number of times the link failed to recover and went down"),
        (
            "link_error_recovery",
            "link_error_recovery",
            "Number of times the link recovered from an error state",
        ),
        (
            "local_link_integrity_errors",
            "local_link_integrity_errors",
            "Number of times that local physical errors exceeded their threshold",
        ),
        (
            "multicast_rcv_packets",
            "multicast_packets_received",
            "Number of multicast packets received (including errors)",
        ),
        (
            "multicast_xmit_packets",
            "multicast_packets_transmitted",
            "Number of multicast packets transmitted (including errors)",
        ),
        (
            "port_rcv_constraint_errors",
            "port_constraint_errors_received",
            "Number of packets received on the switch physical port that are discarded",
        ),
        (
            "port_rcv_data",
            "port_data_received_bytes",
            "Number of data octets received on all links",
        ),
        (
            "port_rcv_discards",
            "port_discards_received",
            "Number of inbound packets discarded as the port is down or congested",
        ),
        (
            "port_rcv_errors",
            "port_errors_received",
            "Number of packets containing an error that were received on this port",
        ),
        (
            "port_rcv_packets",
            "port_packets_received",
            "Number of packets received on all VLs by this port (including errors)",
        ),
        (
            "port_rcv_remote_physical_errors",
            "port_receive_remote_physical_errors",
            "Number of packets received that end in a mark of being bad",
        ),
        (
            "port_rcv_switch_relay_errors",
            "port_receive_switch_relay_errors",
            "Number of packets that the switch could not forward",
        ),
        (
            "port_xmit_constraint_errors",
            "port_constraint_errors_transmitted",
            "Number of packets not transmitted from the switch physical port",
        ),
        (
            "port_xmit_data",
            "port_data_transmitted_bytes",
            "Number of data octets transmitted on all links",
        ),
        (
            "port_xmit_discards",
            "port_discards_transmitted",
            "Number of outbound packets discarded as the port is down or congested",
        ),
        (
            "port_xmit_packets",
            "port_packets_transmitted",
            "Number of packets transmitted on all VLs from this port (including errors)",
        ),
        (
            "port_xmit_wait",
            "port_transmit_wait",
            "Number of ticks during which the port had data to transmit and sent none",
        ),
        (
            "symbol_error",
            "symbol_error",
            "Number of minor link errors detected on one or more physical lanes",
        ),
        (
            "unicast_rcv_packets",
            "unicast_packets_received",
            "Number of unicast packets received (including errors)",
        ),
        (
            "unicast_xmit_packets",
            "unicast_packets_transmitted",
            "Number of unicast packets transmitted (including errors)",
        ),
    ),
    "counters_ext": _counts(
        (
            "port_multicast_rcv_packets",
            "legacy_multicast_packets_received",
            "Number of multicast packets received",
        ),
        (
            "port_multicast_xmit_packets",
            "legacy_multicast_packets_transmitted",
            "Number of multicast packets transmitted",
        ),
        (
            "port_rcv_data_64",
            "legacy_data_received_bytes",
            "Number of data octets received on all links",
        ),
        (
            "port_rcv_packets_64",
            "legacy_packets_received",
            "Number of data packets received on all links",
        ),
        (
            "port_unicast_rcv_packets",
            "legacy_unicast_packets_received",
            "Number of unicast packets received",
        ),
        (
            "port_unicast_xmit_packets",
            "legacy_unicast_packets_transmitted",
            "Number of unicast packets transmitted",
        ),
        (
            "port_xmit_data_64",
            "legacy_data_transmitted_bytes",
            "Number of data octets transmitted on all links",
        ),
        (
            "port_xmit_packets_64",
            "legacy_packets_transmitted",
            "Number of data packets transmitted on all links",
        ),
    ),
    "hw_counters": {
        **_counts(
            (
                "duplicate_request",
                "duplicate_requests_packets",
                "Number of requests received that had been served before",
            ),
            (
                "implied_nak_seq_err",
                "implied_nak_seq_errors",
                "Number of acknowledgements whose sequence number was ahead of the awaited one",
            ),
            (
                "local_ack_timeout_err",
                "local_ack_timeout_errors",
                "Number of times that no acknowledgement came in time",
            ),
            ("np_cnp_sent", "np_cnp_packets_sent", "Number of congestion notifications sent"),
            (
                "np_ecn_marked_roce_packets",
                "np_ecn_marked_roce_packets_received",
                "Number of RoCE packets received with marks of congestion",
            ),
            ("out_of_buffer", "out_of_buffer_drops", "Number of drops for lack of work requests"),
            (
                "out_of_sequence",
                "out_of_sequence_packets_received",
                "Number of packets received out of sequence",
            ),
            (
                "packet_seq_err",
                "packet_sequence_errors",
                "Number of sequence errors that the other side told of",
            ),
            ("req_cqe_error", "req_cqes_errors", "Number of requests completed with errors"),
            (
                "req_cqe_flush_error",
                "req_cqes_flush_errors",
                "Number of requests completed with flushed errors",
            ),
            (
                "req_remote_access_errors",
                "req_remote_access_errors",
                "Number of remote access errors that the requester found",
            ),
            (
                "req_remote_invalid_request",
                "req_remote_invalid_request_errors",
                "Number of remote invalid request errors that the requester found",
            ),
            ("resp_cqe_error", "resp_cqes_errors", "Number of responses completed with errors"),
            (
                "resp_cqe_flush_error",
                "resp_cqes_flush_errors",
                "Number of responses completed with flushed errors",
            ),
            (
                "resp_local_length_error",
                "resp_local_length_errors",
                "Number of local length errors that the responder found",
            ),
            (
                "resp_remote_access_errors",
                "resp_remote_access_errors",
                "Number of remote access errors that the responder found",
            ),
            (
                "rnr_nak_retry_err",
                "rnr_nak_retry_packets_received",
                "Number of answers received that the other side was not ready",
            ),
            (
                "roce_adp_retrans",
                "roce_adp_retransmits",
                "Number of adaptive retransmissions of RoCE traffic",
            ),
            (
                "roce_adp_retrans_to",
                "roce_adp_retransmits_timeout",
                "Number of timeouts of RoCE traffic after adaptive retransmissions",
            ),
            (
                "roce_slow_restart",
                "roce_slow_restart_used",
                "Number of times that RoCE slow restart was used",
            ),
            (
                "roce_slow_restart_cnps",
                "roce_slow_restart_cnps",
                "Number of times that RoCE slow restart made congestion notifications",
            ),
            (
                "roce_slow_restart_trans",
                "roce_slow_restart",
                "Number of times that RoCE changed to slow restart",
            ),
            (
                "rp_cnp_handled",
                "rp_cnp_packets_handled",
                "Number of congestion notifications that slowed transmission",
            ),
            (
                "rp_cnp_ignored",
                "rp_cnp_ignored_packets_received",
                "Number of congestion notifications received and ignored",
            ),
            ("rx_atomic_requests", "rx_atomic_requests", "Number of ATOMIC requests received"),
            (
                "rx_dct_connect",
                "rx_dct_connect_requests",
                "Number of connection requests received for DCTs",
            ),
            (
                "rx_icrc_encapsulated",
                "rx_icrc_encapsulated_errors",
                "Number of RoCE packets with ICRC errors",
            ),
            ("rx_read_requests", "rx_read_requests", "Number of READ requests received"),
            ("rx_write_requests", "rx_write_requests", "Number of WRITE requests received"),
        ),
        "lifespan": Meaning(
            gauge(
                "node_infiniband_lifespan_seconds",
                "How long the driver may give the same counters again.",
                _LABELS,
            ),
            per=1000,
        ),
    },
}
DEVICES = name_filter("device", "InfiniBand devices")


@collector(
    name="infiniband",
    metrics=(
        *(INFO, STATE, PHYSICAL, RATE),
        *(meaning.metric for table in MEANINGS.values() for meaning in table.values()),
    ),
    options=DEVICES.options,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report InfiniBand and RoCE ports: their state, their traffic, their errors."""
    facts, ports, readings = remembered(node, "InfiniBand", lambda: _find(node))
    yield from facts
    for folder, labels in ports:
        for name, metric in (("state", STATE), ("phys_state", PHYSICAL)):
            # Such as "4: ACTIVE".
            number = (node.sys.text(f"{folder}/{name}") or "").partition(":")[0]
            if number.isdecimal():
                yield metric.at(int(number), *labels)
        # Such as "100 Gb/sec (4X EDR)".
        rate = _rate((node.sys.text(f"{folder}/rate") or "").partition(" ")[0])
        if rate is not None:
            yield RATE.at(rate, *labels)
    yield from samples(node.sys, readings)


_Ports = list[tuple[str, tuple[str, str]]]


def _find(node: Node) -> tuple[list[Sample], _Ports, list[Reading]] | None:
    names = node.sys.devices(_FOLDER)
    if names is None:
        return None
    facts: list[Sample] = []
    ports: _Ports = []
    readings: list[Reading] = []
    for name in names:
        if not node.wanted(DEVICES, name):
            continue
        device = f"{_FOLDER}/{name}"
        words = [node.sys.text(f"{device}/{word}") for word in ("board_id", "fw_ver", "hca_type")]
        facts.append(INFO.at(1, name, *(word or "" for word in words)))
        for port in node.sys.names(f"{device}/ports"):
            ports.append((f"{device}/ports/{port}", (name, port)))
            for folder, meanings in MEANINGS.items():
                place = f"{device}/ports/{port}/{folder}"
                readings += present(node.sys, place, meanings, (name, port))
    return facts, ports, readings


def _rate(gigabits: str) -> int | None:
    try:
        return int(float(gigabits) * _GIGABIT)
    except (ValueError, OverflowError):
        return None
