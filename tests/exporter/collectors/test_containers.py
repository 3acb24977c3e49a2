"""Containers of version 1, version 2 and hybrid control groups, named by no engine."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from narthex_exporter.collectors import containers
from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.scrape import Scraper, look
from narthex_exporter.collectors.spec import NoData, Node
from narthex_exporter.sources.cgroups import Cgroups, parse_membership, parse_net
from narthex_exporter.sources.engines import Container, Engines, Known

ID = "4f" * 32
OTHER = "a1" * 32
PROC = {
    "stat": "cpu  1 0 1 1 0 0 0 0 0 0\ncpu0 1 0 1 1 0 0 0 0 0 0\ncpu1 1 0 1 1 0 0 0 0 0 0\n"
    "btime 1700000000\n",
    "meminfo": "MemTotal:        2048 kB\n",
    "77/stat": "77 (a) b) S 1 77 77 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 1200 1 1 1\n",
    "77/net/dev": "Inter-| Receive\n face |bytes\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n"
    "  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\nbroken: 1\n",
    "1/net/dev": "",
}
V2 = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 40\n"
    "nr_throttled 8\nthrottled_usec 1500000\n",
    "cpu.max": "50000 100000\n",
    "cpu.weight": "100\n",
    "memory.current": "7000\n",
    "memory.stat": "anon 3000\nfile 2500\nkernel 100\nfile_mapped 300\ninactive_file 2000\n",
    "memory.swap.current": "64\n",
    "memory.peak": "9000\n",
    "memory.max": "max\n",
    "memory.events": "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n",
    "io.stat": "8:0 rbytes=4096 wbytes=512 rios=3 wios=1 dbytes=0 dios=0\n7:9 rbytes=x\n",
    "pids.current": "5\n",
    "cgroup.procs": "77\n78\n",
}
V1 = {
    "cpu/cpu.stat": "nr_periods 40\nnr_throttled 8\nthrottled_time 1500000000\n",
    "cpu/cpu.cfs_quota_us": "50000\n",
    "cpu/cpu.cfs_period_us": "100000\n",
    "cpu/cpu.shares": "2597\n",
    "cpuacct/cpuacct.usage": "2500000000\n",
    "cpuacct/cpuacct.stat": "user 200\nsystem 50\n",
    "memory/memory.usage_in_bytes": "7000\n",
    "memory/memory.stat": "cache 1\nrss 1\ntotal_cache 2500\ntotal_rss 3000\n"
    "total_mapped_file 300\ntotal_swap 64\ntotal_inactive_file 2000\n",
    "memory/memory.max_usage_in_bytes": "9000\n",
    "memory/memory.failcnt": "12\n",
    "memory/memory.limit_in_bytes": "9223372036854771712\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 512\n"
    "8:0 Sync 4608\n8:0 Total 4608\nTotal 4608\n",
    "blkio/blkio.throttle.io_serviced_recursive": "8:0 Read 3\n8:0 Write 1\nTotal 4\n",
    "pids/pids.current": "5\n",
    "pids/cgroup.procs": "77\n78\n",
}
# What both of them say, by name; those with one more label have it in front.
WANTED = {
    'container_cpu_usage_seconds_total cpu="total"': 2.5,
    "container_cpu_user_seconds_total": 2,
    "container_cpu_system_seconds_total": 0.5,
    "container_cpu_cfs_periods_total": 40,
    "container_cpu_cfs_throttled_periods_total": 8,
    "container_cpu_cfs_throttled_seconds_total": 1.5,
    "container_spec_cpu_quota": 50000,
    "container_spec_cpu_period": 100000,
    "container_spec_cpu_shares": 2597,
    "container_spec_memory_limit_bytes": 0,
    "container_memory_usage_bytes": 7000,
    "container_memory_working_set_bytes": 5000,
    "container_memory_rss": 3000,
    "container_memory_cache": 2500,
    "container_memory_swap": 64,
    "container_memory_max_usage_bytes": 9000,
    "container_memory_mapped_file": 300,
    "container_memory_failcnt": 12,
    "container_oom_events_total": 2,
    'container_fs_reads_bytes_total device="/dev/sda"': 4096,
    'container_fs_writes_bytes_total device="/dev/sda"': 512,
    'container_fs_reads_total device="/dev/sda"': 3,
    'container_fs_writes_total device="/dev/sda"': 1,
    'container_network_receive_bytes_total interface="eth0"': 1000,
    'container_network_receive_packets_total interface="eth0"': 10,
    'container_network_receive_errors_total interface="eth0"': 1,
    'container_network_receive_packets_dropped_total interface="eth0"': 2,
    'container_network_transmit_bytes_total interface="eth0"': 2000,
    'container_network_transmit_packets_total interface="eth0"': 20,
    'container_network_transmit_errors_total interface="eth0"': 3,
    'container_network_transmit_packets_dropped_total interface="eth0"': 4,
    "container_processes": 2,
    "container_threads": 5,
    "container_start_time_seconds": 1700000012,
}

Measure = Callable[..., dict[str, float]]


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def v1(root: Path, group: str, files: dict[str, str] = V1) -> None:
    """Write a container's files into a tree a controller."""
    for name, text in files.items():
        controller, _, file = name.partition("/")
        write(root / f"sys/fs/cgroup/{controller}/{group}", {file: text})


def v2(root: Path, group: str, files: dict[str, str] = V2) -> None:
    base = root / "sys/fs/cgroup"
    write(base, {"cgroup.controllers": "cpuset cpu io memory pids\n"})
    write(base / group, files)


def hybrid(root: Path, group: str) -> None:
    """Write CPU and memory as version 1, and the rest of the controllers as version 2."""
    v1(root, group, {key: text for key, text in V1.items() if key.startswith(("cpu", "memory"))})
    base = root / "sys/fs/cgroup/unified"
    write(base, {"cgroup.controllers": "io pids\n"})
    names = ("cpu.stat", "io.stat", "pids.current", "cgroup.procs")
    write(base / group, {name: V2[name] for name in names})


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    write(tmp_path / "proc", PROC)
    write(tmp_path / "sys/dev/block/8:0", {"uevent": "MAJOR=8\nMINOR=0\nDEVNAME=sda\n"})
    return tmp_path


@pytest.fixture
def make_node(make_node: Callable[..., Node]) -> Iterator[Callable[..., Node]]:
    """Make nodes whose descriptors are closed in the end."""
    made: list[Node] = []

    def make(*arguments: Any, **settings: Any) -> Node:
        made.append(make_node(*arguments, **settings))
        return made[-1]

    yield make
    for node in made:
        node.sources.close()
        node.proc.files.close()
        node.sys.files.close()


def series(name: str, group: str) -> str:
    metric, _, more = name.partition(" ")
    pairs = [f'id="/{group}"', f'name="{ID[:12]}"', 'image=""', *filter(None, [more])]
    return f"{metric}{{{','.join(pairs)}}}"


@pytest.mark.parametrize("make", [v1, v2, hybrid])
@pytest.mark.parametrize(
    "group",
    [
        f"docker/{ID}",
        f"system.slice/docker-{ID}.scope",
        f"machine.slice/libpod-{ID}.scope",
        f"machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope",
        f"libpod_parent/libpod-{ID}",
        f"user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope",
    ],
)
def test_each_version_says_the_same(
    measure: Measure, machine: Path, make: Callable[[Path, str], None], group: str
) -> None:
    make(machine, group)
    found = measure(containers.collect, machine)
    seen = {name: found.get(series(name, group)) for name in WANTED}
    assert seen == WANTED
    others = {name for name in found if not name.startswith("container_")}
    assert others == {"machine_cpu_cores", "machine_memory_bytes"}
    assert found["machine_cpu_cores"] == 2
    assert found["machine_memory_bytes"] == 2 << 20


def test_what_is_no_container_is_left_out(measure: Measure, machine: Path) -> None:
    v2(machine, f"system.slice/docker-{ID}.scope")
    for other in (f"libpod-conmon-{OTHER}.scope", "docker.service", f"{OTHER}.scope"):
        v2(machine, f"system.slice/{other}")
    found = measure(containers.collect, machine)
    assert sum(name.startswith("container_last_seen") for name in found) == 1


def test_podmans_inner_group_holds_the_processes(measure: Measure, machine: Path) -> None:
    group = f"machine.slice/libpod-{ID}.scope"
    v2(machine, group, {**V2, "cgroup.procs": ""})
    write(machine / "sys/fs/cgroup" / group / "container", {"cgroup.procs": "77\n"})
    found = measure(containers.collect, machine)
    assert found[series("container_processes", group)] == 1
    assert found[series('container_network_receive_bytes_total interface="eth0"', group)] == 1000


def test_no_quota_means_no_throttling_to_tell_of(measure: Measure, machine: Path) -> None:
    v2(machine, f"docker/{ID}", {**V2, "cpu.max": "max 100000\n"})
    found = measure(containers.collect, machine)
    assert not [name for name in found if "cfs" in name or "quota" in name]


@pytest.mark.parametrize("name", sorted(V2))
@pytest.mark.parametrize("text", ["", "\xff\x00 nonsense\n", "anon\nmax\n-\n"])
def test_a_spoilt_file_costs_its_own_values(
    measure: Measure, machine: Path, name: str, text: str
) -> None:
    v2(machine, f"docker/{ID}", {**V2, name: text})
    found = measure(containers.collect, machine)
    assert any(each.startswith("container_last_seen") for each in found)


def test_a_missing_file_costs_its_own_values(measure: Measure, machine: Path) -> None:
    group = f"docker/{ID}"
    v2(machine, group, {"cpu.stat": V2["cpu.stat"], "memory.current": "5\n"})
    found = measure(containers.collect, machine)
    assert found[series("container_memory_working_set_bytes", group)] == 5
    assert series("container_memory_rss", group) not in found
    assert series("container_threads", group) not in found


def test_no_container_and_no_engine_is_no_data(
    make_node: Callable[..., Node], machine: Path
) -> None:
    with pytest.raises(NoData, match="no container engine"):
        list(containers.collect.collect(make_node(machine)))


@pytest.mark.parametrize(
    ("problem", "said"), [("permission denied", "group docker"), ("it does not answer", "answer")]
)
def test_an_engine_that_says_nothing_is_the_reason(
    make_node: Callable[..., Node], machine: Path, problem: str, said: str
) -> None:
    node = make_node(machine)
    node.sources.known[Engines] = Told([Known(engine="docker", problem=problem)])
    with pytest.raises(NoData, match=said):
        list(containers.collect.collect(node))


class Told(Engines):
    """Engines that told this."""

    def __init__(self, known: list[Known]) -> None:
        super().__init__()
        self.told = known

    @override
    def known(self, sockets: Any) -> list[Known]:
        return self.told


def page(node: Node) -> dict[str, float]:
    lines = Encoder().encode(look(containers.collect, node.fresh()).samples).decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def fact(**more: Any) -> Container:
    return Container(**{"id": ID, "name": "web", "image": "nginx:1", "state": "running"} | more)


def known(*facts: Container, problem: str = "") -> Known:
    return Known(engine="docker", containers={f.id: f for f in facts}, images=4, problem=problem)


def test_an_engine_gives_name_and_image(make_node: Callable[..., Node], machine: Path) -> None:
    v2(machine, f"docker/{ID}")
    node = make_node(machine, settings={containers.WHITELIST: ("com.x/y",)})
    hostile = fact(name='a"b\\\n', labels={"com.x/y": "v"}, health="starting", started=7.9)
    ended = fact(id=OTHER, name="old", state="exited", exit_code=3, oom_killed=True, restarts=2)
    node.sources.known[Engines] = Told([known(hostile, ended)])
    found = page(node)
    pairs = r'name="a\"b\\\n",image="nginx:1",container_label_com_x_y="v"'
    assert found[f'container_start_time_seconds{{id="/docker/{ID}",{pairs}}}'] == 7
    assert found[f'container_health_state{{id="/docker/{ID}",{pairs}}}'] == 0
    old = 'name="old",image="nginx:1"'
    assert found[f'narthex_container_state{{{old},state="exited"}}'] == 1
    assert found[f'narthex_container_state{{{old},state="running"}}'] == 0
    assert found[f"narthex_container_exit_code{{{old}}}"] == 3
    assert found[f"narthex_container_oom_killed{{{old}}}"] == 1
    assert found[f"narthex_container_restarts_total{{{old}}}"] == 2
    assert found['narthex_containers{engine="docker",state="exited"}'] == 1
    assert found['narthex_container_images{engine="docker"}'] == 4


def test_a_group_elsewhere_is_found_by_its_first_process(
    make_node: Callable[..., Node], machine: Path
) -> None:
    v1(machine, f"mine/{ID}")
    write(machine / "proc", {"77/cgroup": f"4:memory:/mine/{ID}\n3:cpu,cpuacct:/mine/{ID}/in\n"})
    node = make_node(machine)
    node.sources.known[Engines] = Told([known(fact(pid=77))])
    assert any(f'id="/mine/{ID}"' in name for name in page(node))


def test_values_follow_and_what_ends_is_gone(
    make_node: Callable[..., Node], machine: Path
) -> None:
    group = f"docker/{ID}"
    v2(machine, group)
    v2(machine, f"docker/{OTHER}")
    node = make_node(machine)
    name = series("container_memory_usage_bytes", group)
    assert page(node)[name] == page(node)[name] == 7000
    (machine / "sys/fs/cgroup" / group / "memory.current").write_text("8000\n")
    assert page(node)[name] == 8000
    (machine / "proc/77/net/dev").write_text(PROC["77/net/dev"].replace("1000", "1001"))
    received = series('container_network_receive_bytes_total interface="eth0"', group)
    assert page(node)[received] == 1001
    # An idle group is looked at as a whole after a while, whatever its first numbers say.
    (machine / "sys/fs/cgroup" / group / "pids.current").write_text("6\n")
    assert [page(node)[series("container_threads", group)] for _ in range(8)][-1] == 6
    for path in (machine / "sys/fs/cgroup" / group).iterdir():
        path.unlink()
    (machine / "sys/fs/cgroup" / group).rmdir()
    node.source(Cgroups).files.close()
    found = page(node)
    assert not [each for each in found if f"/{ID}" in each]
    assert [each for each in found if f"/{OTHER}" in each]


def test_names_and_the_limit_choose(make_node: Callable[..., Node], machine: Path) -> None:
    for number in range(5):
        v2(machine, f"docker/{number:064x}")
    node = make_node(machine, settings={containers.LIMIT: 3})
    scraper = Scraper(node=node, collectors=[containers.collect])
    lines = Encoder().encode(scraper.samples()).decode().splitlines()
    assert sum(line.startswith("container_last_seen{") for line in lines) == 3
    assert 'narthex_collector_truncated{collector="containers"} 1' in lines
    include = containers.NAMES.exclude.parse("^0")
    node = make_node(machine, settings={containers.NAMES.exclude: include})
    v2(machine, f"docker/{ID}")
    assert sum(name.startswith("container_last_seen") for name in page(node)) == 1


def test_no_two_samples_are_the_same(make_node: Callable[..., Node], machine: Path) -> None:
    v2(machine, f"docker/{ID}")
    node = make_node(machine)
    podman = Known(engine="podman", containers={OTHER: fact(id=OTHER)}, images=1)
    node.sources.known[Engines] = Told([known(fact()), podman])
    text = Encoder().encode(look(containers.collect, node).samples).decode()
    names = [line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#"]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"0::/x/{ID}", {"": f"/x/{ID}"}),
        (f"0::/m/libpod-{ID}.scope/container\n", {"": f"/m/libpod-{ID}.scope"}),
        (f"2:cpu,cpuacct:/d/{ID}\n", {"cpu": f"/d/{ID}", "cpuacct": f"/d/{ID}"}),
        (f"0::/../../{ID}\n", {}),
        ("0::/\n\nnonsense", {}),
    ],
)
def test_membership(text: str, found: dict[str, str]) -> None:
    assert parse_membership(text, ID) == found


def test_interfaces_with_odd_names() -> None:
    numbers = " ".join(map(str, range(16)))
    data = f"a\nb\n e\xff:0: {numbers}\n veth1: {numbers}\n x: y\n".encode("latin-1")
    assert [net.interface for net in parse_net(data)] == ["e\ufffd:0"]
