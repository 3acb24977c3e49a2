"""Report how fast CPUs run, and may run."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources.cpus import Frequencies, current_kilohertz

_CPU = ("cpu",)
HERTZ = gauge("node_cpu_frequency_hertz", "Current CPU thread frequency in hertz.", _CPU)
AVERAGE = gauge("node_cpu_frequency_avg_hertz", "Average CPU thread frequency in hertz.", _CPU)
MINIMUM = gauge("node_cpu_frequency_min_hertz", "Minimum CPU thread frequency in hertz.", _CPU)
MAXIMUM = gauge("node_cpu_frequency_max_hertz", "Maximum CPU thread frequency in hertz.", _CPU)
SCALING = gauge(
    "node_cpu_scaling_frequency_hertz", "Current scaled CPU thread frequency in hertz.", _CPU
)
SCALING_MINIMUM = gauge(
    "node_cpu_scaling_frequency_min_hertz", "Minimum scaled CPU thread frequency in hertz.", _CPU
)
SCALING_MAXIMUM = gauge(
    "node_cpu_scaling_frequency_max_hertz", "Maximum scaled CPU thread frequency in hertz.", _CPU
)
GOVERNOR = gauge(
    "node_cpu_scaling_governor", "Current enabled CPU frequency governor.", ("cpu", "governor")
)
_MOVING = (
    (SCALING, "scaling_cur_freq"),
    (HERTZ, "cpuinfo_cur_freq"),
    (AVERAGE, "cpuinfo_avg_freq"),
)


@collector(
    name="cpufreq",
    metrics=(
        *(HERTZ, AVERAGE, MINIMUM, MAXIMUM),
        *(SCALING, SCALING_MINIMUM, SCALING_MAXIMUM, GOVERNOR),
    ),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report how fast CPUs run, and may run."""
    cpus = node.source(Frequencies).get(node.sys)
    if not cpus:
        raise NoData("this machine does not scale the frequency of its CPUs")
    for each in cpus:
        for metric, name in _MOVING:
            number = current_kilohertz(node.sys, each.cpu, name)
            if number is not None:
                yield metric.at(number * 1000, each.cpu)
        for metric, number in (
            (MINIMUM, each.minimum),
            (MAXIMUM, each.maximum),
            (SCALING_MINIMUM, each.scaling_minimum),
            (SCALING_MAXIMUM, each.scaling_maximum),
        ):
            if number is not None:
                yield metric.at(number * 1000, each.cpu)
        if each.governor:
            for governor in each.governors:
                yield GOVERNOR.at(int(governor == each.governor), each.cpu, governor)
