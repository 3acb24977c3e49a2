"""What the network stack counts keeps the kernel's names; broken lines cost themselves only."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from narthex_exporter.collectors import lnstat, netstat, softnet, vmstat
from narthex_exporter.collectors.spec import NoData

Measure = Callable[..., dict[str, float]]


def test_the_default_fields_are_reported(measure: Measure) -> None:
    found = measure(netstat.collect)
    assert found["node_netstat_Tcp_InSegs"] == 57234744
    assert found["node_netstat_Tcp_MaxConn"] == -1
    assert found["node_netstat_TcpExt_TCPOFOQueue"] == 42165
    assert found["node_netstat_IpExt_OutOctets"] == 2786264347
    assert found["node_netstat_Udp6_OutDatagrams"] == 11
    assert found["node_netstat_Icmp6_OutMsgs"] == 8
    assert not {name for name in found if "RtoMin" in name or "Type133" in name}


def test_every_field_can_be_had(measure: Measure) -> None:
    found = measure(netstat.collect, settings={netstat.FIELDS: re.compile("")})
    assert found["node_netstat_Tcp_RtoMax"] == 120000
    assert found["node_netstat_Icmp6_OutType133"] == 2


def test_without_ipv6_the_rest_is_told(measure: Measure, tree: Path) -> None:
    (tree / "proc/net/snmp6").unlink()
    found = measure(netstat.collect, tree)
    assert "node_netstat_Tcp_InSegs" in found
    assert not {name for name in found if "6_" in name}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Tcp: InSegs",
        "Tcp: InSegs\nUdp: 3\n",
        "Tcp: A InSegs\nTcp: 3\n",
        "\n\n",
        "\xff: InSegs\n\xff: 4\n",
    ],
)
def test_lines_that_do_not_pair_are_left_out(measure: Measure, tree: Path, text: str) -> None:
    (tree / "proc/net/snmp").write_bytes(text.encode("latin-1"))
    assert not {name for name in measure(netstat.collect, tree) if "_Tcp_" in name}


def test_softnet_counts_by_cpu(measure: Measure) -> None:
    found = measure(softnet.collect)
    assert found['node_softnet_processed_total{cpu="0"}'] == 299641
    assert found['node_softnet_dropped_total{cpu="1"}'] == 41
    assert found['node_softnet_times_squeezed_total{cpu="1"}'] == 10
    assert found['node_softnet_cpu_collision_total{cpu="1"}'] == 2
    assert found['node_softnet_received_rps_total{cpu="0"}'] == 12
    assert found['node_softnet_flow_limit_count_total{cpu="0"}'] == 3
    assert found['node_softnet_backlog_len{cpu="0"}'] == 1


@pytest.mark.parametrize(("columns", "series"), [(9, 4), (10, 5), (11, 6), (13, 7), (15, 7)])
def test_older_kernels_tell_less(measure: Measure, tree: Path, columns: int, series: int) -> None:
    (tree / "proc/net/softnet_stat").write_text(" ".join(["00000001"] * columns) + "\n")
    assert len(measure(softnet.collect, tree)) == series


def test_a_cpu_that_is_off_leaves_a_gap(measure: Measure, tree: Path) -> None:
    line = " ".join([*["0000000a"] * 12, "00000003", "0"])
    (tree / "proc/net/softnet_stat").write_text(line + "\n")
    assert measure(softnet.collect, tree)['node_softnet_processed_total{cpu="3"}'] == 10


@pytest.mark.parametrize("text", ["1 2 3\n", "zz " * 9])
def test_a_broken_softnet_line_is_a_failure(measure: Measure, tree: Path, text: str) -> None:
    (tree / "proc/net/softnet_stat").write_text(text)
    with pytest.raises(ValueError, match=r"softnet_stat|invalid literal"):
        measure(softnet.collect, tree)


def test_caches_count_by_cpu(measure: Measure) -> None:
    found = measure(lnstat.collect)
    assert found['node_lnstat_allocs_total{subsystem="arp_cache",cpu="1"}'] == 13
    assert found['node_lnstat_entries_total{subsystem="arp_cache",cpu="0"}'] == 20


@pytest.mark.parametrize("text", ["", "entries", "entries\n1 2 3 4\n"])
def test_odd_caches_are_taken(measure: Measure, tree: Path, text: str) -> None:
    (tree / "proc/net/stat/arp_cache").write_text(text)
    assert len([key for key in measure(lnstat.collect, tree) if "arp_cache" in key]) in {0, 1}


@pytest.mark.parametrize("each", [softnet.collect, lnstat.collect])
def test_a_kernel_without_them_has_no_data(measure: Measure, tmp_path: Path, each: object) -> None:
    with pytest.raises(NoData):
        measure(each, tmp_path)


def test_vmstat_keeps_to_its_fields(measure: Measure) -> None:
    found = measure(vmstat.collect)
    assert "node_vmstat_pgfault" in found
    assert not {name for name in found if "nr_" in name}
