import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from narthex_exporter.collectors import systemd
from narthex_exporter.collectors.background import Background
from narthex_exporter.collectors.scrape import Scraper, look
from narthex_exporter.collectors.spec import Limit, NoData, Node, Sample
from narthex_exporter.sources.place import Sources
from narthex_exporter.sources.unittable import (
    Connections,
    Details,
    Exit,
    Manager,
    Table,
    Unit,
    UnitTable,
)

MANAGER = Manager(version="252.39-1~deb12u1", virtualization="kvm", state="running")
OK = Exit(at=900.0, success=True)
FAILED = Exit(at=950.5, success=False)
HEX = "0123456789abcdef" * 2


@dataclass
class FakeTable:
    """Units that are always the same."""

    units: Sequence[Unit]
    details: dict[str, Details] = field(default_factory=dict)
    manager: Manager = MANAGER

    def look(self, choose: Callable[[Sequence[Unit]], Iterable[Unit]]) -> Table:
        chosen = {unit.name: self.details.get(unit.name, Details()) for unit in choose(self.units)}
        return Table(manager=self.manager, units=self.units, details=chosen)


def unit(name: str, active: str = "active", load: str = "loaded") -> Unit:
    return Unit(name, load, active, "running", f"/{name}", 0)


@pytest.fixture
def measure_units(measure: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
    def run(
        *units: Unit, details: dict[str, Details] | None = None, **node: object
    ) -> dict[str, float]:
        table = FakeTable(units, details or {})
        return measure(systemd.collect, sources=Sources({UnitTable: table}), **node)

    return run


Measure = Callable[..., dict[str, float]]


def test_each_unit_has_five_states_of_which_one_is_true(measure_units: Measure) -> None:
    found = measure_units(unit("a.service", "failed"), details={"a.service": Details(type="exec")})
    states = {key: value for key, value in found.items() if "unit_state" in key}
    assert states == {
        f'node_systemd_unit_state{{name="a.service",state="{state}",type="exec"}}': value
        for state, value in zip(systemd.STATES, (0, 0, 0, 0, 1), strict=True)
    }
    assert found['node_systemd_unit_start_time_seconds{name="a.service"}'] == 0


def test_all_units_are_counted_whatever_is_left_out(measure_units: Measure) -> None:
    found = measure_units(
        unit("dev-sda.device"), unit("x.service", "inactive", "not-found"),
        unit("y.service", "maintenance"), unit("z.slice"),
    )  # fmt: skip
    counts = {key: value for key, value in found.items() if "node_systemd_units" in key}
    assert list(counts.values()) == [2, 0, 0, 1, 0, 1]
    names = {key for key in found if "unit_state" in key}
    assert all('name="y.service"' in key for key in names)


@pytest.mark.parametrize(
    ("version", "number", "label"),
    [
        ("252.39-1~deb12u1", 252.39, "252.39-1~deb12u1"),
        ("v257", 257, "v257"),
        ("44", 0, ""),
        ("", 0, ""),
    ],
)
def test_the_version_is_a_number_and_a_word(
    measure: Measure, version: str, number: float, label: str
) -> None:
    manager = Manager(version=version, virtualization="", state="degraded")
    sources = Sources({UnitTable: FakeTable((), manager=manager)})
    found = measure(systemd.collect, sources=sources)
    assert found[f'node_systemd_version{{version="{label}"}}'] == number
    assert found['node_systemd_virtualization_info{virtualization_type="none"}'] == 1
    assert found["node_systemd_system_running"] == 0


def test_patterns_match_the_whole_name(measure_units: Measure) -> None:
    settings = {
        systemd.NAMES.include: systemd.NAMES.include.parse(r"ssh\.service|ssh"),
        systemd.NAMES.exclude: systemd.NAMES.exclude.parse("s"),
    }
    units = [unit("ssh.service"), unit("ssh.service.d"), unit("openssh.service")]
    found = measure_units(*units, settings=settings)
    assert {key for key in found if "start_time" in key} == {
        'node_systemd_unit_start_time_seconds{name="ssh.service"}'
    }


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("systemd-coredump@3-4121-0.service", False),
        ("sshd@12-10.0.0.1:22-10.0.0.9:51234.service", False),
        ("sshd@12-[::1]:22-[::1]:51234.service", False),
        (f"run-r{HEX}.service", False),
        ("run-u412.timer", False),
        ("run-p812-i914.service", False),
        ("getty@tty1.service", True),
        ("postgresql@15-main.service", True),
        ("user@1000.service", True),
        ("run-backup.service", True),
        ("run-feed.service", True),
    ],
)
def test_units_made_for_one_use_are_told_only_if_they_failed(
    measure_units: Measure,
    name: str,
    told: bool,  # noqa: FBT001 - drawn
) -> None:
    assert any(name in key for key in measure_units(unit(name))) == told
    assert any(name in key for key in measure_units(unit(name, "failed")))


def test_beyond_the_cap_failed_units_come_first(make_node: Callable[..., Node]) -> None:
    units = [unit(f"{number:03}.service") for number in range(500)]
    units.append(unit("zzz.service", "failed"))
    node = make_node(sources=Sources({UnitTable: FakeTable(units)}))
    found = look(systemd.collect, node)
    samples = [each for each in found.samples if isinstance(each, Sample)]
    states = [each.values[0] for each in samples if each.metric is systemd.STATE]
    assert found.truncated
    assert isinstance(systemd.MOST, Limit)
    assert (len(states), states[0], states[-1]) == (2000, "zzz.service", "398.service")


def test_jobs_tell_how_they_ended(measure_units: Measure) -> None:
    details = {
        "backup.timer": Details(starts="backup.service", last=890.0, next=5000.5),
        "backup.service": Details(type="simple", exit=FAILED),
        "setup.service": Details(type="oneshot", exit=OK),
        "never.service": Details(type="oneshot"),
        "nginx.service": Details(type="forking", exit=OK),
    }
    found = measure_units(*map(unit, details), details=details)
    wanted = {
        'narthex_systemd_unit_last_exit_success{name="backup.service"}': 0,
        'narthex_systemd_unit_last_exit_timestamp_seconds{name="backup.service"}': 950.5,
        'narthex_systemd_unit_last_exit_success{name="setup.service"}': 1,
        'narthex_systemd_timer_info{name="backup.timer",unit="backup.service"}': 1,
        'node_systemd_timer_last_trigger_seconds{name="backup.timer"}': 890,
        'narthex_systemd_timer_next_trigger_timestamp_seconds{name="backup.timer"}': 5000.5,
    }
    assert {key: found[key] for key in wanted} == wanted
    ended = {key for key in found if "last_exit_success" in key}
    assert not any("nginx" in key or "never" in key for key in ended)


def test_connections_of_sockets_are_told(measure_units: Measure) -> None:
    told = Details(connections=Connections(accepted=7, current=2, refused=None))
    found = measure_units(unit("a.socket"), details={"a.socket": told})
    assert {key: value for key, value in found.items() if "socket_" in key} == {
        'node_systemd_socket_accepted_connections_total{name="a.socket"}': 7,
        'node_systemd_socket_current_connections{name="a.socket"}': 2,
    }


def test_what_a_unit_uses_comes_from_its_group(measure_units: Measure, tmp_path: Path) -> None:
    folder = tmp_path / "sys/fs/cgroup/system.slice/a.service"
    folder.mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("cpu io memory pids\n")
    (folder / "memory.current").write_text("4096\n")
    (folder / "cpu.stat").write_text("usage_usec 2500000\n")
    (folder / "pids.current").write_text("3\n")
    (folder / "io.stat").write_text("8:0 rbytes=5 wbytes=6 rios=1 wios=1 dbytes=0 dios=0\n")
    told = {"a.service": Details(group="/system.slice/a.service", tasks_max=7, restarts=4)}
    found = measure_units(unit("a.service"), unit("b.service"), details=told, tree=tmp_path)
    assert {key: value for key, value in found.items() if key.endswith('{name="a.service"}')} == {
        'node_systemd_service_restart_total{name="a.service"}': 4,
        'node_systemd_unit_start_time_seconds{name="a.service"}': 0,
        'node_systemd_unit_tasks_current{name="a.service"}': 3,
        'node_systemd_unit_tasks_max{name="a.service"}': 7,
        'narthex_systemd_unit_memory_bytes{name="a.service"}': 4096,
        'narthex_systemd_unit_cpu_seconds_total{name="a.service"}': 2.5,
        'narthex_systemd_unit_io_read_bytes_total{name="a.service"}': 5,
        'narthex_systemd_unit_io_written_bytes_total{name="a.service"}': 6,
    }


def test_what_costs_series_can_be_left_out(measure_units: Measure) -> None:
    switches = (systemd.TASK_METRICS, systemd.RESTART_METRICS, systemd.START_METRICS)
    off = {option: option.parse("false") for option in switches}
    told = {"a.service": Details(tasks_max=7, restarts=4)}
    found = measure_units(unit("a.service"), details=told, settings=off)
    assert not {key for key in found if "tasks" in key or "restart" in key or "start_time" in key}
    with pytest.raises(ValueError, match="true or false"):
        systemd.TASK_METRICS.parse("maybe")


def test_a_hostile_name_passes_through(measure_units: Measure) -> None:
    found = measure_units(unit('a"\\x2d\ufffd.service'))
    assert 'node_systemd_unit_start_time_seconds{name="a\\"\\\\x2d\ufffd.service"}' in found


def test_without_systemd_there_is_no_data_and_that_is_no_failure(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    with pytest.raises(NoData, match="systemd is not running"):
        look(systemd.collect, make_node(tmp_path))


def test_a_bus_that_hangs_delays_no_scrape(make_node: Callable[..., Node], tmp_path: Path) -> None:
    (tmp_path / "root/run/systemd/system").mkdir(parents=True)
    (tmp_path / "root/run/dbus").mkdir()
    table = UnitTable(root=tmp_path / "root", look_seconds=0.5)
    node = make_node(tmp_path, sources=Sources({UnitTable: table}))
    background = Background(node=node, collectors=(systemd.collect,), look=look)
    scraper = Scraper(node=node, collectors=(systemd.collect,), background=background)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(tmp_path / "root/run/dbus/system_bus_socket"))
        server.listen()
        background.start()
        taken, success = [], None
        deadline = time.monotonic() + 5
        while success is None and time.monotonic() < deadline:
            since = time.monotonic()
            samples = [each for each in scraper.samples() if isinstance(each, Sample)]
            taken.append(time.monotonic() - since)
            success = next(
                (s.value for s in samples if s.metric.name == "node_scrape_collector_success"),
                None,
            )
            time.sleep(0.02)
        background.stop()
    assert success == 0
    assert max(taken) < 0.2
