"""Ask what a node is."""

import datetime as dt

from pydantic import AwareDatetime

from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import QueryParams, Result, query


class InfoParams(QueryParams):
    """Parameters of host.info: none."""


class HostInfo(Result):
    """The machine and its system; text is empty where the node does not know."""

    hostname: str
    os_name: str
    os_version: str
    kernel: str
    architecture: str
    virtualization: str
    cpus: int
    memory_bytes: int
    boot_id: str
    booted_at: AwareDatetime
    systemd_unavailable: str


@query(name="host.info", title="About the node")
def info(_params: InfoParams, facts: Facts) -> HostInfo:
    """Tell the node's system, kernel, processors, memory and boot time."""
    host = facts.host.get()
    return HostInfo(
        hostname=host.hostname,
        os_name=host.os_name,
        os_version=host.os_version,
        kernel=host.kernel,
        architecture=host.architecture,
        virtualization=host.virtualization,
        cpus=host.cpus,
        memory_bytes=host.memory_bytes,
        boot_id=host.boot_id,
        booted_at=dt.datetime.fromtimestamp(host.boot_seconds, tz=dt.UTC),
        systemd_unavailable=facts.units.unavailable(),
    )
