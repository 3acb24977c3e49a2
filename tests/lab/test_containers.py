"""Containers of a real Docker engine, beside what the engine itself says of them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from narthex_exporter.collectors import containers
from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import Node, Option
from narthex_exporter.sources.filesystems import Filesystems
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sysfs import Sysfs
from realdocker import IMAGE, Engine, engine

SPIN = "while :; do :; done"
# Each with what it is run with; no registry and no network are needed.
RUN: dict[str, tuple[str, ...]] = {
    "idle": ("--network=none", "--label=team=red", IMAGE, "sleep", "1000"),
    "burning": ("--network=none", "--cpus=0.2", "-m=64m", IMAGE, "sh", "-c", SPIN),
    "starved": (
        "--network=none", "-m=16m", IMAGE, "sh", "-c",
        "dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 1000",
    ),
    "killed": ("--network=none", "-m=16m", IMAGE, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M"),
    "sick": (
        "--network=none", "--health-cmd=false", "--health-interval=1s", "--health-retries=1",
        IMAGE, "sleep", "1000",
    ),
    "ended": ("--network=none", IMAGE, "sh", "-c", "exit 3"),
    "looping": ("--network=none", "--restart=always", IMAGE, "false"),
    "open": ("--network=host", IMAGE, "sleep", "1000"),
}  # fmt: skip

Values = dict[str, float]


@dataclass
class Docker(Engine):
    """An engine of our own, and what the exporter makes of it."""

    node: Node = field(init=False)

    def __post_init__(self) -> None:
        self.node = self.new_node()

    def new_node(self, more: Mapping[Option[Any], Any] | None = None) -> Node:
        settings: dict[Option[Any], Any] = {
            containers.DOCKER_SOCKET: str(self.socket),
            containers.PODMAN_SOCKET: str(self.home / "none.sock"),
            **(more or {}),
        }
        return Node(proc=Procfs(), sys=Sysfs(), filesystems=Filesystems(), settings=settings)

    def scrape(self, node: Node | None = None) -> Values:
        samples = look(containers.collect, (node or self.node).fresh()).samples
        lines = Encoder().encode(samples).decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {series: float(value) for series, _, value in pairs}

    def until(self, true: Callable[[Values], bool], seconds: float = 20) -> Values:
        deadline = time.monotonic() + seconds
        while not true(values := self.scrape()):
            assert time.monotonic() < deadline, values
            time.sleep(0.1)
        return values


def of(values: Values, metric: str, name: str, more: str = "") -> float:
    """Give one container's value."""
    found = [
        value
        for series, value in values.items()
        if series.startswith(f"{metric}{{") and f'name="{name}"' in series and more in series
    ]
    assert len(found) == 1, (metric, name, more, found)
    return found[0]


def has(values: Values, metric: str, name: str, more: str = "") -> bool:
    return any(
        series.startswith(f"{metric}{{") and f'name="{name}"' in series and more in series
        for series in values
    )


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with engine(tmp_path_factory.mktemp("docker")) as one:
        for name, argv in RUN.items():
            one.run("run", "--detach", f"--name={name}", *argv)
        docker = Docker(one.home, one.process)
        try:
            yield docker
        finally:
            docker.node.sources.close()


@pytest.fixture
def settled(docker: Docker) -> Values:
    """A scrape after all containers have come to what they were made for."""
    return docker.until(
        lambda values: (
            has(values, "narthex_container_state", "open")
            and of(values, "narthex_container_health", "sick", 'health="unhealthy"') == 1
            and of(values, "narthex_container_state", "ended", 'state="exited"') == 1
            and of(values, "narthex_container_state", "killed", 'state="exited"') == 1
            and of(values, "narthex_container_restarts_total", "looping") > 1
            and of(values, "container_oom_events_total", "starved") > 0
            and of(values, "container_cpu_cfs_throttled_periods_total", "burning") > 2
        )
    )


def test_states_are_as_inspect_tells_them(docker: Docker, settled: Values) -> None:
    for name in RUN:
        if name == "looping":
            continue  # it is another a moment later
        told = docker.ask(f"/containers/{name}/json")
        state = told["State"]
        wanted = f'state="{state["Status"]}"'
        assert of(settled, "narthex_container_state", name, wanted) == 1
        assert of(settled, "narthex_container_oom_killed", name) == state["OOMKilled"]
        assert of(settled, "narthex_container_restarts_total", name) == told["RestartCount"]
        ended = state["Status"] == "exited"
        assert has(settled, "narthex_container_exit_code", name) == ended
        if ended:
            assert of(settled, "narthex_container_exit_code", name) == state["ExitCode"]
    assert of(settled, "narthex_container_exit_code", "ended") == 3
    assert of(settled, "narthex_container_exit_code", "killed") == 137
    assert of(settled, "narthex_container_oom_killed", "killed") == 1
    assert of(settled, "container_health_state", "sick") == 0
    assert of(settled, "container_health_state", "idle") == -1
    assert settled['narthex_container_engine_up{engine="docker"}'] == 1
    assert settled['narthex_container_images{engine="docker"}'] == 1
    assert settled['narthex_containers{engine="docker",state="exited"}'] == 2


@pytest.mark.parametrize("name", ["idle", "burning", "starved"])
def test_usage_is_what_the_engines_own_statistics_say(
    docker: Docker, settled: Values, name: str
) -> None:
    before = docker.scrape()
    told = docker.ask(f"/containers/{name}/stats?stream=false&one-shot=true")
    after = docker.scrape()

    def between(metric: str, value: float, slack: float = 0.0) -> None:
        low, high = of(before, metric, name), of(after, metric, name)
        assert min(low, high) - slack <= value <= max(low, high) + slack, (metric, low, high)

    cpu, memory = told["cpu_stats"], told["memory_stats"]
    between("container_cpu_usage_seconds_total", cpu["cpu_usage"]["total_usage"] / 1e9, 0.3)
    between("container_cpu_user_seconds_total", cpu["cpu_usage"]["usage_in_usermode"] / 1e9, 0.3)
    between("container_memory_usage_bytes", memory["usage"], 2 << 20)
    between("container_memory_rss", memory["stats"]["total_rss"], 1 << 20)
    inactive = memory["stats"]["total_inactive_file"]
    between("container_memory_working_set_bytes", memory["usage"] - inactive, 2 << 20)
    between("container_threads", told["pids_stats"]["current"])
    if name != "idle":
        between("container_spec_memory_limit_bytes", memory["limit"])
        between("container_memory_failcnt", memory.get("failcnt", 0), 1000)
    if name == "burning":
        throttled = cpu["throttling_data"]
        between("container_cpu_cfs_periods_total", throttled["periods"], 2)
        between("container_cpu_cfs_throttled_periods_total", throttled["throttled_periods"], 2)
        seconds = throttled["throttled_time"] / 1e9
        between("container_cpu_cfs_throttled_seconds_total", seconds, 0.5)
        assert of(after, "container_spec_cpu_quota", name) == 20000
    else:
        assert not has(after, "container_cpu_cfs_periods_total", name)


def test_started_and_seen_are_instants(docker: Docker, settled: Values) -> None:
    now = docker.scrape()
    started = subprocess.run(
        ["date", "+%s", "--date", docker.ask("/containers/idle/json")["State"]["StartedAt"]],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert of(now, "container_start_time_seconds", "idle") == int(started)
    assert abs(of(now, "container_last_seen", "idle") - time.time()) < 2


def test_the_network_is_the_containers_own(docker: Docker, settled: Values) -> None:
    pid = docker.ask("/containers/idle/json")["State"]["Pid"]
    subprocess.run(
        ["ip", "link", "add", f"nxlab{os.getpid()}"[:15], "type", "veth", "peer", "name", "eth7",
         "netns", str(pid)], check=True,
    )  # fmt: skip
    values = docker.until(
        lambda values: has(values, "container_network_receive_bytes_total", "idle")
    )
    assert of(values, "container_network_receive_bytes_total", "idle", 'interface="eth7"') >= 0
    assert not has(values, "container_network_receive_bytes_total", "open")
    subprocess.run(["ip", "link", "delete", f"nxlab{os.getpid()}"[:15]], check=True)


def test_events_tell_of_changes_at_once(docker: Docker, settled: Values) -> None:
    docker.run("run", "--detach", "--name=first", "--network=none", IMAGE, "sleep", "1000")
    docker.until(lambda v: has(v, "container_cpu_usage_seconds_total", "first"), 3)
    docker.run("rename", "first", "second")
    values = docker.until(lambda v: has(v, "container_cpu_usage_seconds_total", "second"), 3)
    assert not has(values, "container_cpu_usage_seconds_total", "first")
    docker.run("pause", "second")
    paused = 'state="paused"'
    docker.until(lambda v: of(v, "narthex_container_state", "second", paused) == 1, 3)
    docker.run("unpause", "second")
    docker.run("update", "--cpus=0.5", "second")
    docker.run("restart", "--time=0", "second")
    values = docker.until(lambda v: has(v, "container_spec_cpu_quota", "second"), 3)
    assert of(values, "container_spec_cpu_quota", "second") == 50000
    docker.run("rm", "--force", "second")
    docker.until(lambda v: not has(v, "narthex_container_state", "second"), 3)
    assert not has(docker.scrape(), "container_last_seen", "second")
    docker.run("tag", IMAGE, "narthex-lab:2")
    docker.run("rmi", "narthex-lab:2")


def test_chosen_labels_are_given(docker: Docker, settled: Values) -> None:
    node = docker.new_node({containers.WHITELIST: ("team",)})
    try:
        deadline = time.monotonic() + 5
        while not has(values := docker.scrape(node), "container_last_seen", "idle"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        node.sources.close()
    assert has(values, "container_last_seen", "idle", 'container_label_team="red"')
    assert has(values, "container_last_seen", "burning", 'container_label_team=""')


def test_a_hung_engine_delays_no_scrape(docker: Docker, settled: Values) -> None:
    docker.process.send_signal(signal.SIGSTOP)
    late = docker.new_node()
    try:
        slowest, names = 0.0, set()
        deadline = time.monotonic() + 7
        while time.monotonic() < deadline:
            for node in (docker.node, late):
                began = time.monotonic()
                values = docker.scrape(node)
                slowest = max(slowest, time.monotonic() - began)
                if node is late:
                    names |= {s for s in values if s.startswith("container_last_seen")}
                else:
                    assert has(values, "container_cpu_usage_seconds_total", "burning")
            time.sleep(0.2)
        print(f"slowest scrape beside a hung engine: {slowest * 1000:.1f} ms")  # noqa: T201
        assert slowest < 0.5
        # An exporter that starts now knows no names, and says so.
        id_ = docker_id(settled, "burning")
        assert any(f'id="{id_}",name="{id_.rpartition("/")[2][:12]}",image=""' in s for s in names)
        assert docker.scrape(late)['narthex_container_engine_up{engine="docker"}'] == 0
    finally:
        docker.process.send_signal(signal.SIGCONT)
        late.sources.close()


def docker_id(values: Values, name: str) -> str:
    """Give the label ``id`` of a container."""
    series = next(s for s in values if s.startswith("container_last_seen") and f'"{name}"' in s)
    return series.partition('id="')[2].partition('"')[0]
