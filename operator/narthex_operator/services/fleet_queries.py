"""The PromQL behind the fleet's figures and a node's charts."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template
from typing import Final

from narthex_operator.clients.prometheus import quoted
from narthex_operator.services.views import Chart, Series

# Filesystems that have no room to run out of, or are full by nature, are left out. Waiting for
# disks is not work. Shares of processors are taken of the sum of all modes: over the first
# seconds of a series rates are too small, and a share of them is right still. A node that is
# down has no present samples: `last` asks its own clock.
_FIGURES: Final = {
    "up": 'max by (node) (up{job="node"})',
    "at": 'max by (node) (timestamp(node_time_seconds{job="node"}))',
    "last": 'max by (node) (last_over_time(node_time_seconds{job="node"}[1h]))',
    "cpus": 'count by (node) (node_cpu_seconds_total{job="node",mode="idle"})',
    "cpu": """
        1 - sum by (node) (
          rate(node_cpu_seconds_total{job="node",mode=~"idle|iowait|steal"}[$window])
        ) / sum by (node) (rate(node_cpu_seconds_total{job="node"}[$window]))""",
    "memory": """
        1 - max by (node) (node_memory_MemAvailable_bytes{job="node"})
          / max by (node) (node_memory_MemTotal_bytes{job="node"})""",
    "disk": """
        topk by (node) (1, max by (node, mountpoint) (
          1 - node_filesystem_avail_bytes{job="node",$room}
          / (node_filesystem_size_bytes{job="node",$room} > 0)))""",
    "load1": 'max by (node) (node_load1{job="node"})',
    "uptime": """
        max by (node) (node_time_seconds{job="node"})
          - max by (node) (node_boot_time_seconds{job="node"})""",
    "alerts": """
        count by (node, severity) (
          ALERTS{alertstate="firing",node!="",alertname!="Watchdog"})""",
}

_BUSY: Final = """1 - sum(rate(node_cpu_seconds_total{$node,mode=~"idle|iowait|steal"}[$window]))
  / sum(rate(node_cpu_seconds_total{$node}[$window]))"""
_IOWAIT: Final = """sum(rate(node_cpu_seconds_total{$node,mode="iowait"}[$window]))
  / sum(rate(node_cpu_seconds_total{$node}[$window]))"""
_MEMORY: Final = "1 - node_memory_MemAvailable_bytes{$node} / node_memory_MemTotal_bytes{$node}"
_DISK: Final = """topk(8, max by (mountpoint) (
  1 - node_filesystem_avail_bytes{$node,$room} / (node_filesystem_size_bytes{$node,$room} > 0)))"""
_RECEIVED: Final = 'sum(rate(node_network_receive_bytes_total{$node,device!="lo"}[$window]))'
_SENT: Final = 'sum(rate(node_network_transmit_bytes_total{$node,device!="lo"}[$window]))'
_ROOM: Final = 'fstype!~"tmpfs|devtmpfs|ramfs|squashfs|erofs|iso9660"'

# Name, unit, and the queries with their series' names; `{label}` takes the name from a label.
_CHARTS: Final = (
    ("cpu", "ratio", ((_BUSY, "busy"), (_IOWAIT, "iowait"))),
    ("memory", "ratio", ((_MEMORY, "used"),)),
    ("disk", "ratio", ((_DISK, "{mountpoint}"),)),
    ("network", "bytes_per_second", ((_RECEIVED, "received"), (_SENT, "sent"))),
    (
        "load",
        "load",
        (("node_load1{$node}", "1 min"), ("node_load5{$node}", "5 min"),
         ("node_load15{$node}", "15 min")),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartPlan:
    """A chart before it is drawn: its queries, each with the name of its series."""

    name: str
    unit: str
    lines: tuple[tuple[str, str], ...]

    def chart(
        self, times: tuple[float, ...], series: Sequence[Series], *, problem: str = ""
    ) -> Chart:
        """Draw it."""
        return Chart(
            name=self.name,
            unit=self.unit,
            times=times,
            series=tuple(series),
            query="\n".join(query for query, _ in self.lines),
            problem=problem,
        )


def figure_queries(window_seconds: int) -> dict[str, str]:
    """Give the query of each figure, for all nodes at once."""
    values = {"window": f"{window_seconds}s", "room": _ROOM}
    return {name: Template(text).substitute(values) for name, text in _FIGURES.items()}


def chart_plans(node: str, window_seconds: int) -> tuple[ChartPlan, ...]:
    """Give one node's charts, rates taken over some seconds."""
    values = {
        "node": f'job="node",node={quoted(node)}',
        "room": _ROOM,
        "window": f"{window_seconds}s",
    }
    return tuple(
        ChartPlan(
            name=name,
            unit=unit,
            lines=tuple((Template(query).substitute(values), label) for query, label in lines),
        )
        for name, unit, lines in _CHARTS
    )
