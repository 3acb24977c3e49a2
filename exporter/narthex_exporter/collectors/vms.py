"""Report libvirt's virtual machines."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    NoData,
    Node,
    Option,
    Sample,
    collector,
    counter,
    gauge,
    limit_option,
    name_filter,
)
from narthex_exporter.sources.libvirt import STATES, Libvirt, NotRunningError
from narthex_exporter.sources.programs import MissingError

_LABELS: Final = ("name",)
STATE = gauge(
    "narthex_vm_state",
    "The state of a virtual machine: 1 for the one it is in, 0 for the others.",
    ("name", "state"),
)
CPU = counter("narthex_vm_cpu_seconds_total", "CPU time that a virtual machine took.", _LABELS)
MEMORY = gauge("narthex_vm_memory_bytes", "Memory that a virtual machine has now.", _LABELS)
MEMORY_MAX = gauge("narthex_vm_memory_max_bytes", "Memory that it may have at most.", _LABELS)
RESIDENT = gauge(
    "narthex_vm_memory_resident_bytes", "Memory that it takes of the host now.", _LABELS
)
VCPUS = gauge("narthex_vm_vcpus", "How many virtual CPUs a virtual machine has.", _LABELS)
URI = Option("uri", "qemu:///system", str, "The libvirt to ask, as virsh --connect takes it.")
NAMES = name_filter("name", "Virtual machines")
LIMIT = limit_option("max", 100, "How many virtual machines to report at most.")


@collector(
    name="vms",
    metrics=(STATE, CPU, MEMORY, MEMORY_MAX, RESIDENT, VCPUS),
    options=(URI, *NAMES.options, LIMIT),
    every_seconds=30,
    limit_seconds=55,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report libvirt's virtual machines."""
    try:
        domains = node.source(Libvirt).domains(node.setting(URI))
    except (MissingError, NotRunningError) as error:
        raise NoData(str(error)) from error
    wanted = (each for each in domains if node.wanted(NAMES, each.name))
    for domain in node.capped(LIMIT, wanted):
        for state in STATES:
            yield STATE.at(int(state == domain.state), domain.name, state)
        for metric, value in (
            (CPU, domain.cpu_seconds),
            (MEMORY, domain.memory_bytes),
            (MEMORY_MAX, domain.memory_max_bytes),
            (RESIDENT, domain.resident_bytes),
            (VCPUS, domain.vcpus),
        ):
            if value is not None:
                yield metric.at(value, domain.name)
