"""Report what each CPU did with its time."""

import re
from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    Metric,
    Node,
    Option,
    Sample,
    collector,
    counter,
    gauge,
    switch_option,
)
from narthex_exporter.sources.cpus import CpuInfo, Cpus, listed, parse_cpuinfo
from narthex_exporter.sources.procfs import CPU_MODES

SECONDS = counter(
    "node_cpu_seconds_total", "Seconds the CPUs spent in each mode.", ("cpu", "mode")
)
GUEST = counter(
    "node_cpu_guest_seconds_total",
    "Seconds the CPUs spent in guests (VMs) for each mode.",
    ("cpu", "mode"),
)
CORE_THROTTLES = counter(
    "node_cpu_core_throttles_total",
    "Number of times this CPU core has been throttled.",
    ("package", "core"),
)
PACKAGE_THROTTLES = counter(
    "node_cpu_package_throttles_total",
    "Number of times this CPU package has been throttled.",
    ("package",),
)
ISOLATED = gauge(
    "node_cpu_isolated",
    "Whether each core is isolated, information from /sys/devices/system/cpu/isolated.",
    ("cpu",),
)
ONLINE = gauge("node_cpu_online", "CPUs that are online and being scheduled.", ("cpu",))
_WHERE: Final = ("package", "core", "cpu")
# The label, and the kernel's name of what it tells.
_INFO: Final = {
    "package": "physical id",
    "core": "core id",
    "cpu": "processor",
    "vendor": "vendor_id",
    "family": "cpu family",
    "model": "model",
    "model_name": "model name",
    "microcode": "microcode",
    "stepping": "stepping",
    "cachesize": "cache size",
}
INFO = gauge("node_cpu_info", "CPU information from /proc/cpuinfo.", tuple(_INFO))
HERTZ = gauge("node_cpu_frequency_hertz", "CPU frequency in hertz from /proc/cpuinfo.", _WHERE)
FLAG = gauge(
    "node_cpu_flag_info",
    "The `flags` field of CPU information from /proc/cpuinfo taken from the first core.",
    ("flag",),
)
BUG = gauge(
    "node_cpu_bug_info",
    "The `bugs` field of CPU information from /proc/cpuinfo taken from the first core.",
    ("bug",),
)
GUEST_ON = switch_option("guest", "Report node_cpu_guest_seconds_total.", default=True)
INFO_ON = switch_option("info", "Report node_cpu_info and node_cpu_frequency_hertz.")


def _some(name: str, field: str) -> Option[re.Pattern[str] | None]:
    return Option(
        f"info.{name}-include",
        "",
        lambda text: re.compile(text) if text else None,
        f"Words of cpuinfo's {field} to report; turns --collector.cpu.info on.",
    )


FLAGS_INCLUDE = _some("flags", "flags")
BUGS_INCLUDE = _some("bugs", "bugs")


@collector(
    name="cpu",
    metrics=(
        *(SECONDS, GUEST, CORE_THROTTLES, PACKAGE_THROTTLES, ISOLATED, ONLINE),
        *(INFO, HERTZ, FLAG, BUG),
    ),
    options=(GUEST_ON, INFO_ON, FLAGS_INCLUDE, BUGS_INCLUDE),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report what each CPU did with its time, and whether it is throttled."""
    guest = node.setting(GUEST_ON)
    for times in node.source(Cpus).steady(node.proc.stat.cpus):
        for mode, seconds in zip(CPU_MODES, times.modes, strict=True):
            yield SECONDS.at(seconds, times.cpu, mode)
        if guest:
            yield GUEST.at(times.guest, times.cpu, "user")
            yield GUEST.at(times.guest_nice, times.cpu, "nice")
    for each in node.source(Cpus).throttles(node.sys):
        if each.core is None:
            yield PACKAGE_THROTTLES.at(each.count, each.package)
        else:
            yield CORE_THROTTLES.at(each.count, each.package, each.core)
    for cpu in listed(node.sys, "isolated") or ():
        yield ISOLATED.at(1, str(cpu))
    online = listed(node.sys, "online")
    if online is not None:
        for cpu in listed(node.sys, "present") or online:
            yield ONLINE.at(int(cpu in online), str(cpu))
    yield from _info(node)


def _info(node: Node) -> Iterator[Sample]:
    flags, bugs = node.setting(FLAGS_INCLUDE), node.setting(BUGS_INCLUDE)
    if not (node.setting(INFO_ON) or flags or bugs):
        return
    cpus = parse_cpuinfo(node.proc.text("cpuinfo"))
    for cpu in cpus:
        yield INFO.at(1, *(cpu.get(name) for name in _INFO.values()))
        if megahertz := cpu.get("cpu MHz"):
            where = (cpu.get(_INFO[label]) for label in _WHERE)
            yield HERTZ.at(float(megahertz) * 1e6, *where)
    for first in cpus[:1]:
        yield from _words(FLAG, flags, first, "flags")
        yield from _words(BUG, bugs, first, "bugs")


def _words(
    metric: Metric, wanted: re.Pattern[str] | None, cpu: CpuInfo, name: str
) -> Iterator[Sample]:
    if wanted is not None:
        for word in cpu.get(name).split():
            if wanted.search(word):
                yield metric.at(1, word)
