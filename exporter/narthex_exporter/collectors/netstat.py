"""Report what the network protocols counted."""

import re
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import Final

from narthex_exporter.collectors.spec import (
    Family,
    Kind,
    Metric,
    Node,
    Sample,
    collector,
    pattern_option,
)
from narthex_exporter.sources.fields import Fields
from narthex_exporter.sources.netcounters import protocol_lines

FIELD = Family("node_netstat_{protocol}_{field}", Kind.UNTYPED, "Statistic {protocol}{field}.")
FIELDS = pattern_option(
    "fields",
    r"^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)"
    r"|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)"
    r"|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab|MaxConn)"
    r"|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$",
    "Fields of /proc/net/netstat, snmp and snmp6 to report, as <protocol>_<field>.",
)
_FILES: Final = ("net/netstat", "net/snmp")


@collector(name="netstat", metrics=(FIELD,), options=(FIELDS,))
def collect(node: Node) -> Iterator[Sample]:
    """Report what the network protocols counted."""
    wanted = node.setting(FIELDS)
    for file in _FILES:
        for names, values in protocol_lines(node.proc.text(file)):
            words = values.split()
            for column, metric in _columns(names, wanted):
                if column < len(words):
                    yield metric.at(int(words[column]))
    try:
        text = node.proc.text("net/snmp6")
    except FileNotFoundError:
        return  # IPv6 is off
    for metric, number in node.source(_Snmp6).pick(text, _chooser6(wanted)):
        yield metric.at(int(number))


class _Snmp6(Fields[Metric]):
    """Where the wanted fields are in /proc/net/snmp6."""


@lru_cache(maxsize=64)
def _columns(names: str, wanted: re.Pattern[str]) -> tuple[tuple[int, Metric], ...]:
    """Choose the columns of a line; its names change with the kernel only."""
    protocol, *fields = names.split() or [""]
    protocol = protocol.removesuffix(":")
    return tuple(
        (column, FIELD.named(protocol=protocol, field=field))
        for column, field in enumerate(fields, start=1)
        if wanted.search(f"{protocol}_{field}")
    )


@cache
def _chooser6(wanted: re.Pattern[str]) -> Callable[[str], Metric | None]:
    def choose(name: str) -> Metric | None:
        protocol, six, field = name.partition("6")
        if six and wanted.search(f"{protocol}6_{field}"):
            return FIELD.named(protocol=f"{protocol}6", field=field)
        return None

    return choose
