"""Report what containers use and how they are, under cAdvisor's names where it has some."""

import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Self

from narthex_exporter.collectors.exposition import escape, number
from narthex_exporter.collectors.spec import (
    Block,
    Metric,
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
from narthex_exporter.sources.cgroups import Cgroups, GoneError, Group, Usage
from narthex_exporter.sources.engines import HEALTHS, STATES, Container, Engines, Known
from narthex_exporter.sources.place import Paths

_LABELS: Final = ("id", "name", "image")
_OURS: Final = ("name", "image")

CPU = counter(
    "container_cpu_usage_seconds_total",
    "Cumulative cpu time consumed in seconds.",
    (*_LABELS, "cpu"),
)
# The metric, and the field of Usage that it shows.
USAGE: Final = (
    (
        counter(
            "container_cpu_user_seconds_total",
            "Cumulative user cpu time consumed in seconds.",
            _LABELS,
        ),
        "cpu_user_seconds",
    ),
    (
        counter(
            "container_cpu_system_seconds_total",
            "Cumulative system cpu time consumed in seconds.",
            _LABELS,
        ),
        "cpu_system_seconds",
    ),
    (
        counter(
            "container_cpu_cfs_periods_total",
            "Number of elapsed enforcement period intervals.",
            _LABELS,
        ),
        "cpu_periods",
    ),
    (
        counter(
            "container_cpu_cfs_throttled_periods_total",
            "Number of throttled period intervals.",
            _LABELS,
        ),
        "cpu_throttled_periods",
    ),
    (
        counter(
            "container_cpu_cfs_throttled_seconds_total",
            "Total time duration the container has been throttled.",
            _LABELS,
        ),
        "cpu_throttled_seconds",
    ),
    (
        gauge(
            "container_memory_usage_bytes",
            "Current memory usage in bytes, including all memory regardless of when it was"
            " accessed",
            _LABELS,
        ),
        "memory_usage",
    ),
    (
        gauge("container_memory_working_set_bytes", "Current working set in bytes.", _LABELS),
        "memory_working_set",
    ),
    (gauge("container_memory_rss", "Size of RSS in bytes.", _LABELS), "memory_rss"),
    (
        gauge("container_memory_cache", "Number of bytes of page cache memory.", _LABELS),
        "memory_cache",
    ),
    (gauge("container_memory_swap", "Container swap usage in bytes.", _LABELS), "memory_swap"),
    (
        gauge(
            "container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", _LABELS
        ),
        "memory_max_usage",
    ),
    (
        gauge("container_memory_mapped_file", "Size of memory mapped files in bytes.", _LABELS),
        "memory_mapped_file",
    ),
    (
        counter("container_memory_failcnt", "Number of memory usage hits limits", _LABELS),
        "memory_failures",
    ),
    (
        counter(
            "container_oom_events_total",
            "Count of out of memory events observed for the container",
            _LABELS,
        ),
        "oom_kills",
    ),
    (
        gauge("container_spec_memory_limit_bytes", "Memory limit for the container.", _LABELS),
        "memory_limit",
    ),
    (gauge("container_spec_cpu_quota", "CPU quota of the container.", _LABELS), "cpu_quota"),
    (gauge("container_spec_cpu_period", "CPU period of the container.", _LABELS), "cpu_period"),
    (gauge("container_spec_cpu_shares", "CPU share of the container.", _LABELS), "cpu_shares"),
    (
        gauge(
            "container_processes",
            "Number of processes running inside the container.",
            _LABELS,
        ),
        "processes",
    ),
    (
        gauge("container_threads", "Number of threads running inside the container", _LABELS),
        "threads",
    ),
)


def _io(name: str, help: str) -> Metric:  # noqa: A002
    return counter(f"container_fs_{name}_total", help, (*_LABELS, "device"))


# In the order of Io's numbers.
IO: Final = (
    (_io("reads_bytes", "Cumulative count of bytes read"), "read_bytes"),
    (_io("writes_bytes", "Cumulative count of bytes written"), "written_bytes"),
    (_io("reads", "Cumulative count of reads completed"), "reads"),
    (_io("writes", "Cumulative count of writes completed"), "writes"),
)


def _net(name: str, help: str) -> Metric:  # noqa: A002
    return counter(f"container_network_{name}_total", help, (*_LABELS, "interface"))


# The metric, and its column in /proc/net/dev.
NET: Final = (
    (_net("receive_bytes", "Cumulative count of bytes received"), 0),
    (_net("receive_packets", "Cumulative count of packets received"), 1),
    (
        _net("receive_errors", "Cumulative count of errors encountered while receiving"),
        2,
    ),
    (
        _net("receive_packets_dropped", "Cumulative count of packets dropped while receiving"),
        3,
    ),
    (_net("transmit_bytes", "Cumulative count of bytes transmitted"), 8),
    (_net("transmit_packets", "Cumulative count of packets transmitted"), 9),
    (
        _net("transmit_errors", "Cumulative count of errors encountered while transmitting"),
        10,
    ),
    (
        _net("transmit_packets_dropped", "Cumulative count of packets dropped while transmitting"),
        11,
    ),
)
START = gauge(
    "container_start_time_seconds",
    "Start time of the container since unix epoch in seconds.",
    _LABELS,
)
HEALTH_STATE = gauge(
    "container_health_state", "The result of the container's health check", _LABELS
)
LAST_SEEN = gauge("container_last_seen", "Last time a container was seen by the exporter", _LABELS)
CORES = gauge("machine_cpu_cores", "Number of logical CPU cores.")
MEMORY = gauge("machine_memory_bytes", "Amount of memory installed on the machine.")

STATE = gauge(
    "narthex_container_state",
    "Whether a container, running or not, is in this state.",
    (*_OURS, "state"),
)
HEALTH = gauge(
    "narthex_container_health",
    "Whether the health check of a container that has one is in this state.",
    (*_OURS, "health"),
)
RESTARTS = counter(
    "narthex_container_restarts_total",
    "How often the engine has restarted a container since somebody started it.",
    _OURS,
)
EXIT_CODE = gauge(
    "narthex_container_exit_code", "How a container that does not run ended last.", _OURS
)
OOM_KILLED = gauge(
    "narthex_container_oom_killed",
    "Whether the end of a container, or of its main process, was for want of memory.",
    _OURS,
)
COUNT = gauge("narthex_containers", "How many containers there are.", ("engine", "state"))
IMAGES = gauge("narthex_container_images", "How many images the engine keeps.", ("engine",))
ENGINE_UP = gauge(
    "narthex_container_engine_up", "Whether the container engine answers us.", ("engine",)
)

DOCKER_SOCKET = Option("docker-socket", "/var/run/docker.sock", str, "Docker's socket.")
PODMAN_SOCKET = Option("podman-socket", "/run/podman/podman.sock", str, "Podman's socket.")
NAMES = name_filter("name", "Containers")
LIMIT = limit_option("max", 100, "Containers to report at most, running ones first.")


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))


WHITELIST = Option(
    "labels",
    "",
    _words,
    "Labels of containers, with commas between, to give as container_label_<label>.",
)

_HEALTH_NUMBERS: Final = {"healthy": 1, "": -1}
_ENDED: Final = frozenset({"exited", "dead", "restarting"})
# What an engine that stopped answering said last is told so long, and then nobody knows.
_TRUST_SECONDS: Final = 120.0
_MEMORY_LOOKS: Final = 60


_BASE: Final[tuple[Metric, ...]] = (
    CPU,
    *(metric for metric, _ in USAGE),
    *(metric for metric, _ in IO),
    *(metric for metric, _ in NET),
    START,
    HEALTH_STATE,
    LAST_SEEN,
)
_IO_AT: Final = 1 + len(USAGE)
_NET_AT: Final = _IO_AT + len(IO)
_START_AT: Final = _NET_AT + len(NET)
_LAST_AT: Final = len(_BASE) - 1


@dataclass(slots=True)
class _Kept:
    """The lines of one container, by the metric's place in the table."""

    group: Group
    fact: Container | None
    head: str
    wanted: bool
    network: bool
    pid: int
    usage: Usage | None = None
    lines: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Lines:
    """What was rendered at the last scrapes, as long as it is true."""

    kept: dict[str, _Kept] = field(default_factory=dict)
    shown: list[_Kept] = field(default_factory=list)
    texts: list[Block | None] = field(default_factory=lambda: [None] * len(_BASE))
    settings: tuple[object, ...] = ()
    known: tuple[Known, ...] = ()
    facts: dict[str, Container] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    states: list[Container] = field(default_factory=list)
    state_blocks: tuple[list[Container], list[Block]] | None = None
    devices: dict[str, str] = field(default_factory=dict)
    memory: int = 0
    looks: int = 0

    @classmethod
    def of(cls, paths: Paths) -> Self:  # noqa: ARG003 - has no place
        """Make one; does no work yet."""
        return cls()


@dataclass(frozen=True, slots=True)
class _Table:
    """The metrics of a container's group, with the labels that are white-listed."""

    metrics: tuple[Metric, ...]
    labels: tuple[str, ...]


@lru_cache(maxsize=8)
def _table(labels: tuple[str, ...]) -> _Table:
    names = tuple(f"container_label_{re.sub(r'[^a-zA-Z0-9_]', '_', label)}" for label in labels)
    metrics = _BASE
    if labels:
        metrics = tuple(Metric(m.name, m.kind, m.help, (*m.labels, *names)) for m in _BASE)
    return _Table(metrics, tuple(dict.fromkeys(names)))


@collector(
    name="containers",
    metrics=(
        *_BASE, CORES, MEMORY, STATE, HEALTH, RESTARTS, EXIT_CODE, OOM_KILLED, COUNT, IMAGES,
        ENGINE_UP,
    ),
    options=(DOCKER_SOCKET, PODMAN_SOCKET, *NAMES.options, LIMIT, WHITELIST),
)  # fmt: skip
def collect(node: Node) -> Iterator[Sample | Block]:
    """Report what containers of Docker and Podman use and how they are.

    What they use is read from their control groups; the engines are only asked for names and
    states, and never in the path of a scrape.
    """
    lines = node.source(Lines)
    engines = node.source(Engines)
    sockets = {
        "docker": str(node.paths.rooted(node.setting(DOCKER_SOCKET))),
        "podman": str(node.paths.rooted(node.setting(PODMAN_SOCKET))),
    }
    known = engines.known(sockets)
    _learn(lines, known)
    cgroups = node.source(Cgroups)
    groups = cgroups.groups(lines.pids)
    if not groups and not any(each.containers or not each.problem for each in known):
        raise NoData(_why(known, sockets))
    for each in known:
        yield ENGINE_UP.at(0 if each.problem else 1, each.engine)
    yield from _machine(node, lines)
    if engines.settling():
        # With their ids for names now, they would be others a moment later.
        groups = [group for group in groups if group.id in lines.facts]
    yield from _usage(node, lines, cgroups, groups)
    yield from _states(node, lines, known)


def _why(known: Iterable[Known], sockets: Mapping[str, str]) -> str:
    for each in known:
        hint = ""
        if each.problem == "permission denied" and each.engine == "docker":
            hint = "; membership of the group docker gives access, and with it root's power"
        return f"no container runs, and {sockets[each.engine]}: {each.problem}{hint}"
    return "there is no container engine, and no container runs"


def _learn(lines: Lines, known: list[Known]) -> None:
    """Take what engines told, if anything is new."""
    now = tuple(known)
    if len(now) == len(lines.known) and all(map(_same, now, lines.known)):
        return
    lines.known = now
    facts: dict[str, Container] = {}
    for each in reversed(now):
        facts |= each.containers
    lines.facts = facts
    lines.pids = {fact.id: fact.pid for fact in facts.values() if fact.pid}
    # Running ones first, if there are too many; by name and image they are to be unique.
    unique = {(fact.name, fact.image): fact for fact in facts.values()}
    lines.states = sorted(
        unique.values(), key=lambda fact: (fact.state not in {"running", "paused"}, fact.name)
    )
    lines.state_blocks = None


def _same(one: object, other: object) -> bool:
    return one is other


def _machine(node: Node, lines: Lines) -> Iterator[Sample]:
    # Where these cannot be read, collectors of their own say so.
    if lines.looks % _MEMORY_LOOKS == 0:
        with contextlib.suppress(OSError, ValueError):
            lines.memory = next(
                (size for name, size, _ in node.proc.meminfo() if name == "MemTotal"), 0
            )
    lines.looks += 1
    with contextlib.suppress(OSError, ValueError):
        yield CORES.at(len(node.proc.stat.cpus))
    if lines.memory:
        yield MEMORY.at(lines.memory * 1024)


def _boot(node: Node) -> int:
    with contextlib.suppress(OSError, ValueError):
        return node.proc.stat.numbers.get("btime", 0)
    return 0


def _usage(
    node: Node, lines: Lines, cgroups: Cgroups, groups: list[Group]
) -> Iterator[Sample | Block]:
    whitelist = node.setting(WHITELIST)
    table = _table(whitelist)
    settings = (whitelist, node.setting(NAMES.include), node.setting(NAMES.exclude))
    if settings != lines.settings:
        lines.settings = settings
        lines.kept.clear()
    facts = lines.facts
    wanted = []
    for group in groups:
        fact = facts.get(group.id)
        kept = lines.kept.get(group.id)
        if kept is None or kept.fact is not fact or kept.group is not group:
            kept = lines.kept[group.id] = _keep(node, cgroups, group, fact, whitelist)
        if kept.wanted:
            wanted.append(kept)
    if len(lines.kept) > 2 * len(groups) + 16:
        here = {group.id for group in groups}
        lines.kept = {id_: kept for id_, kept in lines.kept.items() if id_ in here}
    wanted.sort(key=lambda kept: kept.head)
    shown = []
    changed: set[int] = set()
    for kept in node.capped(LIMIT, wanted):
        try:
            usage = kept.group.look(network=kept.network)
        except GoneError:
            cgroups.lose(kept.group)
            continue
        shown.append(kept)
        if usage is not kept.usage:
            changed |= _render(node, lines, kept, usage)
    yield from _blocks(lines, table, shown, changed)


def _keep(
    node: Node,
    cgroups: Cgroups,
    group: Group,
    fact: Container | None,
    whitelist: tuple[str, ...],
) -> _Kept:
    if fact is None:
        name, image = group.id[:12], ""
        network = cgroups.own_network(group)
        boot = _boot(node)
        started = group.started(boot) if boot else 0.0
    else:
        name, image, network, started = fact.name, fact.image, fact.own_network, fact.started
    pairs = {"id": group.path, "name": name, "image": image}
    for label, key in zip(whitelist, _table(whitelist).labels, strict=False):
        pairs[key] = "" if fact is None else fact.labels.get(label, "")
    head = ",".join(f'{key}="{escape(value)}"' for key, value in pairs.items())
    kept = _Kept(group, fact, head, node.wanted(NAMES, name), network, group.pid)
    kept.lines = [""] * len(_BASE)
    if started:
        kept.lines[_START_AT] = _line(START, head, int(started))
    if fact is not None:
        health = _HEALTH_NUMBERS.get(fact.health, 0)
        kept.lines[_START_AT + 1] = _line(HEALTH_STATE, head, health)
    return kept


def _line(metric: Metric, head: str, value: float) -> str:
    return f"{metric.name}{{{head}}} {number(value)}\n"


def _render(node: Node, lines: Lines, kept: _Kept, usage: Usage) -> set[int]:
    """Write the lines that are not as before, and say which."""
    before = kept.usage
    kept.usage = usage
    head = kept.head
    changed = set()
    if before is None or before.cpu_seconds != usage.cpu_seconds:
        changed.add(0)
        kept.lines[0] = (
            ""
            if usage.cpu_seconds is None
            else _line(CPU, f'{head},cpu="total"', usage.cpu_seconds)
        )
    for place, (metric, name) in enumerate(USAGE, 1):
        value = getattr(usage, name)
        if before is None or getattr(before, name) != value:
            changed.add(place)
            kept.lines[place] = "" if value is None else _line(metric, head, value)
    if before is None or before.io != usage.io:
        devices = [(_device(node, lines, io.device), io) for io in usage.io]
        for place, (metric, name) in enumerate(IO, _IO_AT):
            changed.add(place)
            kept.lines[place] = "".join(
                [
                    _line(metric, f'{head},device="{escape(device)}"', getattr(io, name))
                    for device, io in devices
                ]
            )
    if before is None or before.net != usage.net:
        for place, (metric, column) in enumerate(NET, _NET_AT):
            changed.add(place)
            kept.lines[place] = "".join(
                [
                    _line(
                        metric, f'{head},interface="{escape(net.interface)}"', net.numbers[column]
                    )
                    for net in usage.net
                ]
            )
    return changed


def _device(node: Node, lines: Lines, numbers: str) -> str:
    """Name a device as cAdvisor does; one that is gone keeps its numbers."""
    name = lines.devices.get(numbers)
    if name is None:
        text = node.sys.text(f"dev/block/{numbers}/uevent") or ""
        named = [row for row in text.splitlines() if row.startswith("DEVNAME=")]
        if not named:
            return numbers
        name = lines.devices[numbers] = f"/dev/{named[0].removeprefix('DEVNAME=')}"
    return name


def _blocks(lines: Lines, table: _Table, shown: list[_Kept], changed: set[int]) -> Iterator[Block]:
    if len(shown) != len(lines.shown) or not all(map(_same, shown, lines.shown)):
        lines.shown = shown
        lines.texts = [None] * len(_BASE)
    for place in changed:
        lines.texts[place] = None
    for place, metric in enumerate(table.metrics[:_LAST_AT]):
        block = lines.texts[place]
        if block is None:
            text = "".join([kept.lines[place] for kept in shown])
            block = lines.texts[place] = Block(metric, text, text.count("\n"))
        if block.series:
            yield block
    if shown:
        now = f"}} {int(time.time())}\n"
        text = "".join([f"container_last_seen{{{kept.head}{now}" for kept in shown])
        yield Block(table.metrics[_LAST_AT], text, len(shown))


def _states(node: Node, lines: Lines, known: Iterable[Known]) -> Iterator[Sample | Block]:
    now = time.monotonic()
    trusted = [each for each in known if not each.problem or now - each.since < _TRUST_SECONDS]
    for each in trusted:
        counts = dict.fromkeys(STATES, 0)
        for fact in each.containers.values():
            counts[fact.state] = counts.get(fact.state, 0) + 1
        if each.containers or not each.problem:
            for state, count in counts.items():
                yield COUNT.at(count, each.engine, state)
        if each.images is not None:
            yield IMAGES.at(each.images, each.engine)
    ids = {id_ for each in trusted for id_ in each.containers}
    wanted = [fact for fact in lines.states if fact.id in ids and node.wanted(NAMES, fact.name)]
    facts = node.capped(LIMIT, wanted)
    if lines.state_blocks is None or lines.state_blocks[0] != facts:
        lines.state_blocks = (facts, list(_state_blocks(facts)))
    yield from lines.state_blocks[1]


def _state_blocks(facts: list[Container]) -> Iterator[Block]:
    rows: dict[Metric, list[str]] = {
        metric: [] for metric in (STATE, HEALTH, RESTARTS, EXIT_CODE, OOM_KILLED)
    }
    for fact in facts:
        head = f'name="{escape(fact.name)}",image="{escape(fact.image)}"'
        for state in STATES:
            rows[STATE].append(_line(STATE, f'{head},state="{state}"', int(fact.state == state)))
        if fact.health:
            for health in HEALTHS:
                value = int(fact.health == health)
                rows[HEALTH].append(_line(HEALTH, f'{head},health="{health}"', value))
        rows[RESTARTS].append(_line(RESTARTS, head, fact.restarts))
        if fact.state in _ENDED:
            rows[EXIT_CODE].append(_line(EXIT_CODE, head, fact.exit_code))
        rows[OOM_KILLED].append(_line(OOM_KILLED, head, int(fact.oom_killed)))
    for metric, texts in rows.items():
        if texts:
            yield Block(metric, "".join(texts), len(texts))
