"""CPU time never goes back; throttles count once a core and once a package."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import cpu, cpufreq, schedstat, stat
from narthex_exporter.collectors.spec import NoData, Node

Measure = Callable[..., dict[str, float]]
CPU = "sys/devices/system/cpu"


def test_throttles_count_once_a_core_and_once_a_package(measure: Measure) -> None:
    found = measure(cpu.collect)
    assert found['node_cpu_core_throttles_total{package="0",core="0"}'] == 5
    assert found['node_cpu_core_throttles_total{package="0",core="1"}'] == 10
    assert found['node_cpu_package_throttles_total{package="0"}'] == 30
    assert len([name for name in found if "throttles" in name]) == 3


def test_a_cpu_that_comes_is_looked_at(make_node: Callable[..., Node], tree: Path) -> None:
    node = make_node(tree)
    before = [s for s in cpu.collect.collect(node) if s.metric is cpu.CORE_THROTTLES]
    shutil.copytree(tree / CPU / "cpu1", tree / CPU / "cpu2")
    (tree / CPU / "cpu2/topology/core_id").write_text("7\n")
    (tree / CPU / "online").write_text("0-2\n")
    after = [s for s in cpu.collect.collect(node.fresh()) if s.metric is cpu.CORE_THROTTLES]
    assert len(before) == 2
    assert [s.values for s in after][-1] == ("0", "7")  # type: ignore[union-attr]  # Samples


def test_online_and_isolated_cpus_are_told(measure: Measure) -> None:
    found = measure(cpu.collect)
    assert [found[f'node_cpu_online{{cpu="{n}"}}'] for n in (0, 1, 2)] == [1, 1, 0]
    assert [name for name in found if "isolated" in name] == ['node_cpu_isolated{cpu="1"}']


@pytest.mark.parametrize(
    ("then", "seconds"),
    [
        ("cpu0 600 100 150 20000 20 3 4 4 5 6", 0.25),  # iowait sank: held back
        ("cpu0 600 100 150 20000 31 3 4 4 5 6", 0.31),
        ("cpu0 1 0 0 100 3 0 0 0 0 0", 0.03),  # off and on again: counted anew
    ],
)
def test_iowait_does_not_go_back(
    make_node: Callable[..., Node], tree: Path, then: str, seconds: float
) -> None:
    node = make_node(tree)
    list(cpu.collect.collect(node))
    (tree / "proc/stat").write_text(then + "\n")
    found = {s.values: s.value for s in cpu.collect.collect(node.fresh())}  # type: ignore[union-attr]  # Samples
    assert found["0", "iowait"] == seconds
    assert ("1", "iowait") not in found


def test_guests_and_information_are_asked_for(measure: Measure) -> None:
    usual = measure(cpu.collect)
    assert 'node_cpu_guest_seconds_total{cpu="0",mode="user"}' in usual
    assert not [name for name in usual if "_info" in name or "hertz" in name]
    found = measure(cpu.collect, settings={cpu.GUEST_ON: False, cpu.INFO_ON: True})
    assert not [name for name in found if "guest" in name or "flag_info" in name]
    assert (
        found[
            'node_cpu_info{package="0",core="1",cpu="1",vendor="GenuineIntel",family="6",'
            'model="142",model_name="Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz",'
            'microcode="0xb4",stepping="10",cachesize="8192 KB"}'
        ]
        == 1
    )
    assert found['node_cpu_frequency_hertz{package="0",core="0",cpu="0"}'] == 799.5e6


def test_flags_turn_information_on(measure: Measure) -> None:
    wanted = cpu.FLAGS_INCLUDE.parse("^avx"), cpu.BUGS_INCLUDE.parse("spectre")
    found = measure(
        cpu.collect, settings=dict(zip((cpu.FLAGS_INCLUDE, cpu.BUGS_INCLUDE), wanted, strict=True))
    )
    assert {name for name in found if "flag_info" in name or "bug_info" in name} == {
        'node_cpu_flag_info{flag="avx"}',
        'node_cpu_flag_info{flag="avx2"}',
        'node_cpu_bug_info{bug="spectre_v1"}',
    }
    assert any(name.startswith("node_cpu_info") for name in found)


def test_frequencies_are_in_hertz(measure: Measure) -> None:
    found = measure(cpufreq.collect)
    assert found['node_cpu_scaling_frequency_hertz{cpu="1"}'] == 1219918000
    assert found['node_cpu_frequency_hertz{cpu="0"}'] == 1699981000
    assert 'node_cpu_frequency_hertz{cpu="1"}' not in found
    assert found['node_cpu_scaling_frequency_max_hertz{cpu="0"}'] == 2400000000
    assert found['node_cpu_frequency_max_hertz{cpu="0"}'] == 4200000000
    assert found['node_cpu_scaling_governor{cpu="0",governor="powersave"}'] == 1
    assert found['node_cpu_scaling_governor{cpu="0",governor="performance"}'] == 0


def test_a_machine_without_frequencies_has_none(measure: Measure, tmp_path: Path) -> None:
    with pytest.raises(NoData):
        measure(cpufreq.collect, tmp_path)


def test_schedstat_is_in_seconds(measure: Measure) -> None:
    found = measure(schedstat.collect)
    assert found['node_schedstat_running_seconds_total{cpu="0"}'] == 2045936.778163039
    assert found['node_schedstat_waiting_seconds_total{cpu="1"}'] == 364107.263788241
    assert found['node_schedstat_timeslices_total{cpu="1"}'] == 5145567945


def test_schedstat_skips_short_lines(measure: Measure, tree: Path) -> None:
    (tree / "proc/schedstat").write_text("version 15\ncpu0 1 2\n")
    assert not measure(schedstat.collect, tree)


def test_softirqs_are_asked_for(measure: Measure, tree: Path) -> None:
    assert not [name for name in measure(stat.collect) if "softirqs" in name]
    (tree / "proc/stat").write_text("softirq 70 1 2 3 4 5 6 7 8 9 10\n")
    found = measure(stat.collect, tree, settings={stat.SOFTIRQ: True})
    assert found['node_softirqs_total{vector="hi"}'] == 1
    assert found['node_softirqs_total{vector="rcu"}'] == 10


@pytest.mark.parametrize("text", ["", "x y\n\n: :\n", "processor\t: \xff\n\nprocessor\n"])
def test_a_cpuinfo_that_is_none_gives_nothing(measure: Measure, tree: Path, text: str) -> None:
    (tree / "proc/cpuinfo").write_bytes(text.encode("latin-1"))
    found: dict[str, Any] = measure(cpu.collect, tree, settings={cpu.INFO_ON: True})
    assert not [name for name in found if "_info" in name]
