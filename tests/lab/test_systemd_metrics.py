"""What we tell of a real systemd, beside what node_exporter's own collector tells of it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.lab.conftest import Machine, booted

from narthex_exporter.collectors import logind, systemd
from narthex_exporter.collectors.registry import to_families
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import Collector, Node
from narthex_exporter.sources.dbus import BusError
from narthex_exporter.sources.filesystems import Filesystems
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sysfs import Sysfs
from narthex_exporter.sources.unittable import UnitTable

pytestmark = pytest.mark.systemd

# What their 1.5 has not and later ones have.
NEWER = {"node_systemd_virtualization_info"}
PEER = "/usr/bin/prometheus-node-exporter"
ACTIVE = {"active": 1.0, "activating": 0.0, "deactivating": 0.0, "inactive": 0.0, "failed": 0.0}
FAILED = ACTIVE | {"active": 0.0, "failed": 1.0}
# A process that works a little, holds memory, and has two tasks.
BUSY = """\
[Service]
Type=exec
ExecStart=/bin/sh -c 'head -c 30000000 /dev/zero | tail -c 1 >/dev/null; sleep 300 & wait'
CPUAccounting=yes
MemoryAccounting=yes
IOAccounting=yes
TasksMax=77
"""
CRASHES = """\
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/sleep infinity
Restart=always
RestartSec=50ms
"""
SOCKET = """\
[Socket]
ListenStream=/run/lab-echo.sock
Accept=yes
MaxConnections=1
"""
ECHO = "[Service]\nExecStart=/bin/cat\nStandardInput=socket\n"
FETCH = """\
import time, urllib.request
for _ in range(100):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:9100/metrics", timeout=10).read().decode())
        break
    except OSError:
        time.sleep(0.1)
"""
# Enough of PAM to open a session with logind.
PAM = """\
account required pam_permit.so
session required pam_systemd.so class=user type=tty
"""
AS_NOBODY = """\
import os
from narthex_exporter.collectors import systemd
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import Node
from narthex_exporter.sources.filesystems import Filesystems
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sysfs import Sysfs

assert os.geteuid() == 65534
node = Node(proc=Procfs(), sys=Sysfs(), filesystems=Filesystems())
print(len(look(systemd.collect, node).samples))
"""
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Reader:
    """Our collector on the machine, seen from outside as from a container."""

    def __init__(self, machine: Machine) -> None:
        paths = Paths(proc=machine.root / "proc", sys=machine.root / "sys", root=machine.root)
        self.node = Node(
            proc=Procfs(paths.proc), sys=Sysfs(paths.sys), filesystems=Filesystems(), paths=paths
        )
        self.table = self.node.source(UnitTable)

    def text(self, collector: Collector = systemd.collect) -> str:
        samples = look(collector, self.node.fresh()).samples

        class Page:
            def collect(self) -> object:
                return to_families(samples)

        return generate_latest(Page()).decode()  # type: ignore[arg-type]  # all it asks for

    def samples(self) -> Samples:
        return parse(self.text())

    def value(self, metric: str, **labels: str) -> float | None:
        return self.samples().get((metric, frozenset(labels.items())))

    def states(self, name: str) -> dict[str, float]:
        return {
            dict(labels)["state"]: value
            for (metric, labels), value in self.samples().items()
            if metric == "node_systemd_unit_state" and ("name", name) in labels
        }


def parse(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def reader(machine: Machine) -> Iterator[Reader]:
    one = Reader(machine)
    yield one
    one.node.sources.close()


# What a machine of the lab may account with: its own part of version 1's trees.
ACCOUNTED = [Path("/sys/fs/cgroup") / name for name in ("pids", "cpuacct", "blkio")]
PLACED = [*ACCOUNTED, *(Path("/sys/fs/cgroup") / name for name in ("systemd", "unified"))]


def move_to(group: str) -> None:
    for tree in PLACED:
        (tree / group / "cgroup.procs").write_text(str(os.getpid()))


@pytest.fixture
def accounting() -> Iterator[Machine]:
    """A machine that may make groups of controllers, below one of ours."""
    if os.geteuid() != 0 or not all((tree / "cgroup.procs").exists() for tree in PLACED):
        pytest.skip("needs root and the trees of version 1 in /sys/fs/cgroup")
    here = dict(
        line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()
    )
    if {here.get(name) for name in ("pids", "cpuacct", "blkio", "name=systemd", "")} != {"/"}:
        pytest.skip("needs to be in the root of each of these trees")
    group = f"narthex-lab-{os.getpid()}"
    try:
        for tree in PLACED:
            (tree / group).mkdir()
        move_to(group)
        with booted() as machine:
            move_to(".")
            for tree in ACCOUNTED:
                machine.run("mount", "-o", "remount,bind,rw", str(tree))
            machine.run("systemctl", "daemon-reexec")
            yield machine
    finally:
        move_to(".")
        for tree in PLACED:
            for folder, _, _ in os.walk(tree / group, topdown=False):
                await_gone(Path(folder))


def await_gone(group: Path) -> None:
    """Remove a group whose last processes are just ending."""
    deadline = time.monotonic() + 5
    while group.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            group.rmdir()


def await_value(ask: Callable[[], object], wanted: object, *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while (found := ask()) != wanted:
        assert time.monotonic() < deadline, (found, wanted)
        time.sleep(0.1)


def test_states_are_told_and_follow(machine: Machine, reader: Reader) -> None:
    machine.unit("lab-busy.service", BUSY)
    machine.run("systemctl", "start", "lab-busy.service")
    assert reader.states("lab-busy.service") == ACTIVE
    machine.run("systemctl", "kill", "--signal=KILL", "lab-busy.service")
    await_value(lambda: reader.states("lab-busy.service"), FAILED)
    machine.run("systemctl", "reset-failed", "lab-busy.service")


def test_a_unit_tells_its_cpu_time_its_limit_and_its_start(
    machine: Machine, reader: Reader
) -> None:
    machine.unit("lab-busy.service", BUSY)
    machine.run("systemctl", "start", "lab-busy.service")
    time.sleep(0.5)
    found = {
        metric: value
        for (metric, labels), value in reader.samples().items()
        if labels == frozenset({("name", "lab-busy.service")})
    }
    assert found["node_systemd_unit_tasks_max"] == 77
    assert 0.001 < found["narthex_systemd_unit_cpu_seconds_total"] < 10
    assert abs(found["node_systemd_unit_start_time_seconds"] - time.time()) < 30
    # Whether there are more than that depends on the controllers that the host lets it have.
    for metric, prop in (
        ("narthex_systemd_unit_memory_bytes", "MemoryCurrent"),
        ("node_systemd_unit_tasks_current", "TasksCurrent"),
    ):
        told = machine.show("lab-busy.service", prop)
        assert found.get(metric) == (float(told) if told.isdigit() else None)
    machine.run("systemctl", "stop", "lab-busy.service")


def test_tasks_and_disk_traffic_are_what_the_controllers_count(accounting: Machine) -> None:
    reader = Reader(accounting)
    accounting.unit("lab-busy.service", BUSY)
    accounting.run("systemctl", "start", "lab-busy.service")
    await_value(lambda: accounting.show("lab-busy.service", "TasksCurrent"), "2")
    found = reader.samples()
    reader.node.sources.close()
    name = frozenset({("name", "lab-busy.service")})
    assert found["node_systemd_unit_tasks_current", name] == 2
    assert found["narthex_systemd_unit_io_read_bytes_total", name] >= 0
    assert found["narthex_systemd_unit_io_written_bytes_total", name] >= 0
    # Others have tasks too, and each as many as systemd itself says.
    tasks = {
        dict(labels)["name"]: value
        for (metric, labels), value in found.items()
        if metric == "node_systemd_unit_tasks_current"
    }
    assert tasks == {unit: float(accounting.show(unit, "TasksCurrent")) for unit in tasks}


def test_a_crash_is_counted_though_the_state_is_the_same_again(
    machine: Machine, reader: Reader
) -> None:
    machine.unit("lab-crashes.service", CRASHES)
    machine.run("systemctl", "start", "lab-crashes.service")
    name = {"name": "lab-crashes.service"}
    assert reader.value("node_systemd_service_restart_total", **name) == 0
    for restarts in ("1", "2"):
        machine.run("systemctl", "kill", "--signal=SEGV", "lab-crashes.service")
        await_value(lambda: machine.show("lab-crashes.service", "NRestarts"), restarts)
        await_value(lambda: machine.show("lab-crashes.service", "ActiveState"), "active")
        found = reader.value("node_systemd_service_restart_total", **name)
        assert found == int(restarts)
    machine.run("systemctl", "stop", "lab-crashes.service")


def test_a_timer_tells_its_last_and_its_next_run_and_how_it_ended(
    machine: Machine, reader: Reader
) -> None:
    job = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit $(cat /run/lab-code)'\n"
    machine.write("/run/lab-code", "0")
    machine.unit("lab-nightly.service", job)
    machine.unit(
        "lab-nightly.timer", "[Timer]\nOnCalendar=hourly\nOnActiveSec=300ms\nAccuracySec=1ms\n"
    )
    before = time.time()
    machine.run("systemctl", "start", "lab-nightly.timer")
    timer, service = {"name": "lab-nightly.timer"}, {"name": "lab-nightly.service"}
    reader.samples()
    await_value(lambda: machine.show("lab-nightly.timer", "LastTriggerUSec") != "", True)
    await_value(lambda: machine.show("lab-nightly.service", "ActiveState"), "inactive")
    found = reader.samples()

    def value(metric: str, labels: dict[str, str]) -> float:
        return found[metric, frozenset(labels.items())]

    assert before < value("node_systemd_timer_last_trigger_seconds", timer) < time.time()
    due = value("narthex_systemd_timer_next_trigger_timestamp_seconds", timer)
    assert due == (time.time() // 3600 + 1) * 3600
    info = timer | {"unit": "lab-nightly.service"}
    assert value("narthex_systemd_timer_info", info) == 1
    assert value("narthex_systemd_unit_last_exit_success", service) == 1
    assert value("narthex_systemd_unit_last_exit_timestamp_seconds", service) > before
    # It fails the next time, within one look and the next.
    machine.write("/run/lab-code", "3")
    machine.run("systemctl", "restart", "lab-nightly.timer")
    await_value(lambda: machine.show("lab-nightly.service", "ActiveState"), "failed")
    assert reader.value("narthex_systemd_unit_last_exit_success", **service) == 0
    machine.run("systemctl", "stop", "lab-nightly.timer")
    machine.run("systemctl", "reset-failed", "lab-nightly.service")


def test_a_timer_after_boot_tells_its_next_run_as_a_time(machine: Machine, reader: Reader) -> None:
    machine.unit("lab-later.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
    machine.unit("lab-later.timer", "[Timer]\nOnActiveSec=1h\n")
    machine.run("systemctl", "start", "lab-later.timer")
    due = reader.value(
        "narthex_systemd_timer_next_trigger_timestamp_seconds", name="lab-later.timer"
    )
    assert due is not None
    assert abs(due - time.time() - 3600) < 120
    last = reader.value("node_systemd_timer_last_trigger_seconds", name="lab-later.timer")
    assert last == 0
    machine.run("systemctl", "stop", "lab-later.timer")


def test_a_oneshot_that_fails_before_its_main_process_has_failed(
    machine: Machine, reader: Reader
) -> None:
    text = "[Service]\nType=oneshot\nExecStartPre=/bin/false\nExecStart=/bin/true\n"
    machine.unit("lab-pre.service", text)
    machine.run("systemctl", "start", "lab-pre.service", check=False)
    name = {"name": "lab-pre.service"}
    assert reader.value("narthex_systemd_unit_last_exit_success", **name) == 0
    at = reader.value("narthex_systemd_unit_last_exit_timestamp_seconds", **name) or 0
    assert abs(at - time.time()) < 30
    assert reader.states("lab-pre.service") == FAILED
    machine.run("systemctl", "reset-failed", "lab-pre.service")


def test_a_socket_counts_its_connections(machine: Machine, reader: Reader) -> None:
    machine.unit("lab-echo@.service", ECHO)
    machine.unit("lab-echo.socket", SOCKET)
    machine.run("systemctl", "start", "lab-echo.socket")
    reader.samples()
    hold = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect('/run/lab-echo.sock')\n"
    held = hold + "s.send(b'x'); s.recv(1); print(flush=True); sys.stdin.read()"
    enter = ["nsenter", "-t", str(machine.init), "-m", "-u", "-i", "-n", "-p"]
    client = subprocess.Popen(
        [*enter, sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with client:
        assert client.stdout is not None
        client.stdout.readline()
        machine.run(sys.executable, "-c", hold + "s.recv(1)")
        found = [
            reader.value(f"node_systemd_socket_{what}", name="lab-echo.socket")
            for what in (
                "accepted_connections_total", "current_connections", "refused_connections_total",
            )
        ]  # fmt: skip
        text = reader.text()
    assert found == [1, 1, 1]
    # One unit a connection is made, with numbers of processes in its name, and is not told of.
    assert "lab-echo@" not in text
    machine.run("systemctl", "stop", "lab-echo.socket")


def test_a_look_at_what_has_not_changed_costs_few_calls(reader: Reader) -> None:
    reader.samples()
    first = reader.table.calls
    reader.samples()
    second = reader.table.calls - first
    timers = len([key for key in reader.samples() if key[0] == "narthex_systemd_timer_info"])
    assert second <= timers + 10 < first


def test_a_bus_that_went_away_is_connected_to_again(reader: Reader) -> None:
    reader.samples()
    bus = reader.table._bus
    assert bus is not None
    bus.connection.sock.shutdown(2)
    with pytest.raises(BusError):
        reader.samples()
    assert reader.value("node_systemd_units", state="active")


def test_nobody_in_particular_is_told_as_much(machine: Machine, reader: Reader) -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    reader.samples()
    told = machine.run(*nobody, sys.executable, "-Ic", AS_NOBODY)
    assert int(told) == len(reader.samples()) > 200


@pytest.fixture
def theirs(machine: Machine) -> Iterator[Callable[[], str]]:
    """node_exporter's systemd collector inside the machine."""
    if not Path(PEER).exists():
        pytest.skip("needs apt-get install prometheus-node-exporter")
    process = subprocess.Popen(
        [
            "nsenter", "-t", str(machine.init), "-m", "-u", "-i", "-n", "-p", PEER,
            "--collector.disable-defaults", "--collector.systemd", "--collector.logind",
            "--collector.systemd.enable-task-metrics",
            "--collector.systemd.enable-restarts-metrics",
            "--collector.systemd.enable-start-time-metrics",
            # Debian's own default leaves out targets too.
            f"--collector.systemd.unit-exclude={systemd.NAMES.exclude.default}",
            "--web.listen-address=127.0.0.1:9100", "--web.disable-exporter-metrics",
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def scrape() -> str:
        return machine.run(sys.executable, "-c", FETCH)

    try:
        yield scrape
    finally:
        # nsenter forks for the namespace of processes, so that it is its child that runs.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGTERM)
        process.wait(10)


def kinds(text: str) -> dict[str, str]:
    found = dict(re.findall(r"^# TYPE (node_systemd_\S+) (\S+)$", text, re.MULTILINE))
    return {name: kind for name, kind in found.items() if name not in NEWER}


def helps(text: str) -> dict[str, str]:
    found = dict(re.findall(r"^# HELP (node_systemd_\S+) (.+)$", text, re.MULTILINE))
    return {name: words for name, words in found.items() if name not in NEWER}


def test_names_types_labels_and_values_are_node_exporters(
    machine: Machine, reader: Reader, theirs: Callable[[], str]
) -> None:
    machine.unit("lab-busy.service", BUSY)
    machine.unit("lab-echo@.service", ECHO)
    machine.unit("lab-echo.socket", SOCKET)
    machine.unit("lab-later.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
    machine.unit("lab-later.timer", "[Timer]\nOnActiveSec=1h\n")
    machine.run("systemctl", "start", "lab-busy.service", "lab-echo.socket", "lab-later.timer")
    time.sleep(0.5)
    theirs()
    reader.samples()
    their_text, our_text = theirs(), reader.text()
    wanted = {key: v for key, v in parse(their_text).items() if key[0].startswith("node_systemd")}
    ours = {key: v for key, v in parse(our_text).items() if key[0].startswith("node_systemd")}
    assert len(wanted) > 200
    ours = {key: value for key, value in ours.items() if key[0] not in NEWER}
    assert ours.keys() == wanted.keys()
    differing = {key: (ours[key], wanted[key]) for key in wanted if ours[key] != wanted[key]}
    moving = {key for key in differing if key[0].endswith("tasks_current")}
    assert not {key: value for key, value in differing.items() if key not in moving}
    assert kinds(our_text) == kinds(their_text)
    assert helps(our_text) == helps(their_text)
    machine.run("systemctl", "stop", "lab-busy.service", "lab-echo.socket", "lab-later.timer")


def test_sessions_are_node_exporters_but_for_those_at_nought(
    machine: Machine, reader: Reader, theirs: Callable[[], str]
) -> None:
    machine.write("/etc/pam.d/narthex-lab", PAM)
    machine.run("systemctl", "start", "systemd-logind.service")
    for unit in ("lab-login-1", "lab-login-2"):
        start = ("systemd-run", f"--unit={unit}", "--property=PAMName=narthex-lab")
        machine.run(*start, "--property=User=root", "/bin/sleep", "300")
    await_value(lambda: len(machine.run("loginctl", "--no-legend").splitlines()), 2)
    wanted = {
        key: value
        for key, value in parse(theirs()).items()
        if key[0] == "node_logind_sessions" and value
    }
    ours = parse(reader.text(logind.collect))
    assert {key: value for key, value in ours.items() if value} == wanted
    assert list(wanted.values()) == [2]
    machine.run("systemctl", "stop", "lab-login-1", "lab-login-2")
