"""Report systemd's units: their states, what they use, timers, sockets, how jobs ended."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from narthex_exporter.collectors.spec import (
    Filter,
    NoData,
    Node,
    Option,
    Sample,
    collector,
    counter,
    gauge,
    limit_option,
    switch_option,
)
from narthex_exporter.sources.unitgroups import UnitGroups
from narthex_exporter.sources.unittable import Details, Manager, NoSystemdError, Unit, UnitTable

_NAME = ("name",)
STATES: Final = ("active", "activating", "deactivating", "inactive", "failed")
STATE = gauge("node_systemd_unit_state", "Systemd unit", ("name", "state", "type"))
STARTED = gauge(
    "node_systemd_unit_start_time_seconds",
    "Start time of the unit since unix epoch in seconds.",
    _NAME,
)
TASKS = gauge("node_systemd_unit_tasks_current", "Current number of tasks per Systemd unit", _NAME)
TASKS_MAX = gauge("node_systemd_unit_tasks_max", "Maximum number of tasks per Systemd unit", _NAME)
RUNNING = gauge(
    "node_systemd_system_running",
    "Whether the system is operational (see 'systemctl is-system-running')",
)
UNITS = gauge("node_systemd_units", "Summary of systemd unit states", ("state",))
RESTARTS = counter(
    "node_systemd_service_restart_total", "Service unit count of Restart triggers", _NAME
)
LAST = gauge(
    "node_systemd_timer_last_trigger_seconds", "Seconds since epoch of last trigger.", _NAME
)
ACCEPTED = counter(
    "node_systemd_socket_accepted_connections_total",
    "Total number of accepted socket connections",
    _NAME,
)
CURRENT = gauge(
    "node_systemd_socket_current_connections", "Current number of socket connections", _NAME
)
# It only grows, but a gauge is what node_exporter makes of it.
REFUSED = gauge(
    "node_systemd_socket_refused_connections_total",
    "Total number of refused socket connections",
    _NAME,
)
VERSION = gauge("node_systemd_version", "Detected systemd version", ("version",))
VIRTUALIZATION = gauge(
    "node_systemd_virtualization_info",
    "Detected virtualization technology",
    ("virtualization_type",),
)
NEXT = gauge(
    "narthex_systemd_timer_next_trigger_timestamp_seconds",
    "When a timer is due next, in unixtime; absent while it waits for nothing.",
    _NAME,
)
TIMER = gauge("narthex_systemd_timer_info", "Which unit a timer starts; is 1.", ("name", "unit"))
EXIT_SUCCESS = gauge(
    "narthex_systemd_unit_last_exit_success",
    "Whether a oneshot service, or one that a timer starts, succeeded when it last ended.",
    _NAME,
)
EXIT_TIME = gauge(
    "narthex_systemd_unit_last_exit_timestamp_seconds",
    "When the main process of such a service last ended, in unixtime.",
    _NAME,
)
MEMORY = gauge(
    "narthex_systemd_unit_memory_bytes", "Memory of a unit's group, with its page cache.", _NAME
)
CPU = counter("narthex_systemd_unit_cpu_seconds_total", "CPU time of a unit's group.", _NAME)
READ = counter(
    "narthex_systemd_unit_io_read_bytes_total", "Bytes read from disks by a unit's group.", _NAME
)
WRITTEN = counter(
    "narthex_systemd_unit_io_written_bytes_total",
    "Bytes written to disks by a unit's group.",
    _NAME,
)


def _whole(text: str) -> re.Pattern[str]:
    # As in node_exporter these match the whole name.
    return re.compile(rf"\A(?:{text})\Z")


NAMES = Filter(
    Option("unit-include", ".+", _whole, "Units to report; matches the whole name."),
    Option(
        "unit-exclude",
        r".+\.(automount|device|mount|scope|slice)",
        _whole,
        "Units to leave out; matches the whole name.",
    ),
)
TASK_METRICS = switch_option("enable-task-metrics", default=True, help="Tell tasks of services.")
RESTART_METRICS = switch_option(
    "enable-restarts-metrics", default=True, help="Tell restarts of services."
)
START_METRICS = switch_option(
    "enable-start-time-metrics", default=True, help="Tell when units started."
)
MOST = limit_option("max-units", 400, "Units to report at most; failed ones come first.")
# Made for one connection (of IP or of a Unix socket) or one systemd-run, never to be seen again.
_ONE_OFF: Final = re.compile(
    r"@\d+-(?:.+:\d+-.+:\d+|\d+-\d+)\.service\Z|\Arun-(?:r[0-9a-f]{32}|u\d+|p\d+-i\d+)\."
)
_NUMBER: Final = re.compile(r"[0-9]{3,}(\.[0-9]+)?")


@collector(
    name="systemd",
    metrics=(
        STATE, STARTED, TASKS, TASKS_MAX, RUNNING, UNITS, RESTARTS, LAST, ACCEPTED, CURRENT,
        REFUSED, VERSION, VIRTUALIZATION, NEXT, TIMER, EXIT_SUCCESS, EXIT_TIME, MEMORY, CPU, READ,
        WRITTEN,
    ),
    limit_seconds=10.0,
    options=(*NAMES.options, TASK_METRICS, RESTART_METRICS, START_METRICS, MOST),
    every_seconds=15.0,
)  # fmt: skip
def collect(node: Node) -> Iterator[Sample]:
    """Report systemd's units: their states, what they use, timers, sockets, how jobs ended."""
    chosen: list[Unit] = []
    include, exclude = (node.setting(option).match for option in NAMES.options)

    def choose(units: Sequence[Unit]) -> list[Unit]:
        wanted = [
            unit
            for unit in units
            if unit.load == "loaded" and include(unit.name) and not exclude(unit.name)
            if unit.active == "failed" or not _ONE_OFF.search(unit.name)
        ]
        wanted.sort(key=lambda unit: (unit.active != "failed", unit.name))
        chosen.extend(node.capped(MOST, wanted))
        return chosen

    try:
        table = node.source(UnitTable).look(choose)
    except NoSystemdError as error:
        raise NoData(str(error)) from error
    yield from _about(table.manager, table.units)
    yield from _states(node, chosen, table.details)
    yield from _jobs(chosen, table.details)
    yield from _usage(node, {unit.name: table.details[unit.name].group for unit in chosen})


def _about(manager: Manager, units: Sequence[Unit]) -> Iterator[Sample]:
    number = _NUMBER.search(manager.version)
    yield VERSION.at(float(number[0]) if number else 0, manager.version if number else "")
    yield VIRTUALIZATION.at(1, manager.virtualization or "none")
    yield RUNNING.at(1 if manager.state == "running" else 0)
    summary = dict.fromkeys(STATES, 0)
    for unit in units:
        summary[unit.active] = summary.get(unit.active, 0) + 1
    for state, count in summary.items():
        yield UNITS.at(count, state)


def _states(node: Node, units: Sequence[Unit], details: dict[str, Details]) -> Iterator[Sample]:
    tasks, restarts, starts = map(node.setting, (TASK_METRICS, RESTART_METRICS, START_METRICS))
    for unit in units:
        name, told = unit.name, details[unit.name]
        for state in STATES:
            yield STATE.at(1 if unit.active == state else 0, name, state, told.type)
        if starts:
            yield STARTED.at(told.started, name)
        if restarts and told.restarts is not None:
            yield RESTARTS.at(told.restarts, name)
        if tasks and told.tasks_max is not None:
            yield TASKS_MAX.at(told.tasks_max, name)
        if told.connections is not None:
            yield ACCEPTED.at(told.connections.accepted, name)
            yield CURRENT.at(told.connections.current, name)
            if told.connections.refused is not None:
                yield REFUSED.at(told.connections.refused, name)


def _jobs(units: Sequence[Unit], details: dict[str, Details]) -> Iterator[Sample]:
    timed = set()
    for unit in units:
        told = details[unit.name]
        if told.last is not None:
            yield LAST.at(told.last, unit.name)
        if told.next is not None:
            yield NEXT.at(told.next, unit.name)
        if told.starts:
            yield TIMER.at(1, unit.name, told.starts)
            timed.add(told.starts)
    for unit in units:
        told = details[unit.name]
        if told.exit is not None and (told.type == "oneshot" or unit.name in timed):
            yield EXIT_SUCCESS.at(1 if told.exit.success else 0, unit.name)
            yield EXIT_TIME.at(told.exit.at, unit.name)


def _usage(node: Node, groups: dict[str, str]) -> Iterator[Sample]:
    """Tell what units use; ``groups`` are theirs by name, empty where one has none."""
    used = UnitGroups(node.paths.sys).usage(set(filter(None, groups.values())))
    tasks = node.setting(TASK_METRICS)
    for name, group in groups.items():
        usage = used.get(group)
        if usage is None:
            continue
        if usage.tasks is not None and tasks and name.endswith(".service"):
            yield TASKS.at(usage.tasks, name)
        for metric, value in (
            (MEMORY, usage.memory),
            (CPU, usage.cpu),
            (READ, usage.read),
            (WRITTEN, usage.written),
        ):
            if value is not None:
                yield metric.at(value, name)
