"""The container families on a real Docker engine: what is done is what the engine then tells."""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from containernode import ContainerNode
from fakeregistry import Registry, registry
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.wire import Run, RunState
from narthex_exporter.follows.container import LogParams, LogPart, logs
from realdocker import IMAGE, Engine, engine

SLEEP = ("--network=none", IMAGE, "sleep", "1000")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(tmp_path_factory.mktemp("engine")) as one:
        yield one


@pytest.fixture
def docker(daemon: Engine) -> Iterator[Engine]:
    yield daemon
    daemon.remove_all()


@pytest.fixture
def node(docker: Engine) -> ContainerNode:
    return ContainerNode(docker=docker.socket)


@pytest.fixture
def held() -> Iterator[Registry]:
    with registry() as one:
        yield one


def test_list_tells_what_inspect_tells(docker: Engine, node: ContainerNode) -> None:
    docker.run("run", "-d", "--name=web", "--label=narthex.protected=true", *SLEEP)
    docker.run("run", "-d", "--name=bad", "--network=none", IMAGE, "sh", "-c", "exit 3")
    docker.run("wait", "bad")
    listed = node.ask("container.list")
    assert [(one["name"], one["state"], one["exit_code"]) for one in listed["containers"]] == [
        ("bad", "exited", 3), ("web", "running", 0),
    ]  # fmt: skip
    assert [one["is_protected"] for one in listed["containers"]] == [False, True]
    # Podman's socket is not there: that is told, and costs nothing.
    told = {one["name"]: one["problem"] for one in listed["engines"]}
    assert told["docker"] == ""
    assert "no such file" in told["podman"]


def test_one_container_is_told_without_its_secrets(docker: Engine, node: ContainerNode) -> None:
    docker.run(
        "run", "-d", "--name=web", "--env=DB_PASS=hunter2", "--env=TZ=UTC",
        "--label=api.token=hunter3", "--cpus=0.5", "-m=64m", "--pids-limit=50",
        "--volume=data:/data", "--network=none", IMAGE, "sh", "-c", "sleep 1000", "--password",
        "hunter4",
    )  # fmt: skip
    told = node.ask("container.get", container="web")
    assert "hunter" not in json.dumps(told)
    assert "DB_PASS=***" in told["environment"]
    assert "TZ=UTC" in told["environment"]
    one = told["container"]
    assert (one["cpus"], one["memory_bytes"], one["pids"]) == (0.5, 64 << 20, 50)
    assert one["mounts"] == [
        {"kind": "volume", "source": "data", "target": "/data", "is_writable": True}
    ]
    assert json.loads(told["inspect"])["Name"] == "/web"
    assert node.ask("container.get", container=one["id"][:12])["container"] is None
    docker.run("rm", "--force", "web")
    docker.run("volume", "rm", "data")


def test_logs_of_several_are_merged_by_time_and_searched(
    docker: Engine, node: ContainerNode
) -> None:
    for name, first in (("aa", 0.0), ("bb", 0.3)):
        script = f"sleep {first}; echo {name}-one; sleep 0.8; echo {name}-two >&2"
        docker.run("create", f"--name={name}", "--network=none", IMAGE, "sh", "-c", script)
    docker.run("start", "aa", "bb")
    docker.run("wait", "aa", "bb")
    told = node.ask("container.logs", containers=["bb", "aa"])
    assert [one["text"] for one in told["lines"]] == ["aa-one", "bb-one", "aa-two", "bb-two"]
    assert [one["stream"] for one in told["lines"]] == ["stdout", "stdout", "stderr", "stderr"]
    assert [one["text"] for one in node.ask("container.logs", containers=["aa"], lines=1)["lines"]
            ] == ["aa-two"]  # fmt: skip
    found = node.ask("container.logs", containers=["aa", "bb"], match="TWO")
    assert [one["container"] for one in found["lines"]] == ["aa", "bb"]
    assert found["searched"] == 4
    gone = node.ask("container.logs", containers=["gone"])
    assert gone["problems"] == ["there is no container gone in docker"]


def test_a_terminal_and_colours_make_plain_lines(docker: Engine, node: ContainerNode) -> None:
    script = r"printf '\033[31mred\033[0m\n'; printf '10%%\r20%%\n'"
    docker.run("run", "-t", "--name=tty", "--network=none", IMAGE, "sh", "-c", script)
    told = node.ask("container.logs", containers=["tty"])
    assert [one["text"] for one in told["lines"]] == ["red", "20%"]


def followed(
    node: ContainerNode, *, until: Callable[[list[LogPart]], object], **params: Any
) -> list[LogPart]:
    """Follow logs until what was told satisfies, at most 15 s."""
    told: list[LogPart] = []
    listener = Listener()
    timer = threading.Timer(15, listener.over.set)
    timer.start()
    with contextlib.closing(logs.tell(LogParams(**params), node.facts, listener)) as parts:  # type: ignore[type-var] # a generator
        for part in parts:
            told.append(part)
            if until(told):
                break
    timer.cancel()
    assert until(told), told
    return told


def texts(told: list[LogPart]) -> list[str]:
    return [line.text for part in told for line in part.lines]


class Listener:
    def __init__(self) -> None:
        self.over = threading.Event()

    def wait(self, seconds: float) -> bool:
        return self.over.wait(seconds)

    def readable(self, _descriptor: int, seconds: float) -> bool:
        return self.over.wait(seconds)


def test_logs_of_several_are_followed_merged_and_go_on_where_they_were(
    docker: Engine, node: ContainerNode
) -> None:
    for name in ("aa", "bb"):
        script = f"n=0; while :; do n=$((n+1)); echo {name}-$n; echo err >&2; sleep 0.1; done"
        docker.run("run", "-d", f"--name={name}", "--network=none", IMAGE, "sh", "-c", script)
    time.sleep(0.5)
    first = followed(
        node, containers=("aa", "bb"), lines=6, until=lambda told: len(texts(told)) > 30
    )
    lines = [line for part in first for line in part.lines]
    assert {(line.container, line.stream) for line in lines} == {
        (name, stream) for name in ("aa", "bb") for stream in ("stdout", "stderr")
    }  # fmt: skip
    assert [one.at for one in first[0].lines] == sorted(one.at for one in first[0].lines if one.at)
    assert len(first[0].lines) == 6
    again = followed(
        node, containers=("aa", "bb"), lines=0, after=first[-1].cursor,
        until=lambda told: len(texts(told)) > 20,
    )  # fmt: skip
    for name in ("aa", "bb"):
        numbers = [int(one[3:]) for one in texts(first + again) if one.startswith(f"{name}-")]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_container_that_is_started_anew_is_followed_on(
    docker: Engine, node: ContainerNode
) -> None:
    docker.run("run", "--name=brief", "--network=none", IMAGE, "echo", "once")

    def start_again(told: list[LogPart]) -> bool:
        if len(told) == 1:
            docker.run("start", "brief")
        return len(texts(told)) > 1

    assert texts(followed(node, containers=("brief",), until=start_again)) == ["once", "once"]


def test_nobody_listens_any_more_ends_it_at_once_though_nothing_is_written(
    docker: Engine, node: ContainerNode
) -> None:
    docker.run("run", "-d", "--name=silent", *SLEEP)
    listener = Listener()
    threading.Timer(0.5, listener.over.set).start()
    before = threading.active_count()
    began = time.monotonic()
    told = list(logs.tell(LogParams(containers=("silent",)), node.facts, listener))
    assert time.monotonic() - began < 2
    assert texts(told) == []
    assert threading.active_count() <= before
    with pytest.raises(RefusedError, match="there is no container gone in docker"):
        next(logs.tell(LogParams(containers=("gone",)), node.facts, listener))


def test_a_flood_is_bounded_and_what_is_left_out_is_counted(
    docker: Engine, node: ContainerNode
) -> None:
    script = "n=0; while [ $n -lt 20000 ]; do n=$((n+1)); echo line-$n; done; echo last >&2"
    docker.run("create", "--name=flood", "--network=none", IMAGE, "sh", "-c", script)

    def counted(told: list[LogPart]) -> int:
        if len(told) == 1:
            docker.run("start", "flood")
        return len(texts(told)) + sum(part.dropped for part in told)

    told = followed(node, containers=("flood",), until=lambda told: counted(told) >= 20_001)
    assert counted(told[1:]) == 20_001
    assert 1000 <= len(texts(told)) < 5000


def test_stats_are_one_look_at_all(docker: Engine, node: ContainerNode) -> None:
    spin = "while :; do :; done"
    docker.run("run", "-d", "--name=idle", *SLEEP)
    docker.run("run", "-d", "--name=busy", "--cpus=0.3", "--network=none", IMAGE, "sh", "-c", spin)
    time.sleep(1)
    began = time.monotonic()
    told = {one["name"]: one for one in node.ask("container.stats")["stats"]}
    assert time.monotonic() - began < 3
    assert set(told) == {"idle", "busy"}
    assert 0.1 < told["busy"]["cpu_ratio"] < 0.6
    assert told["idle"]["cpu_ratio"] < 0.05
    assert told["idle"]["memory_bytes"] > 0
    assert told["idle"]["pids"] == 1


def test_a_container_is_stopped_started_paused_and_undone(
    docker: Engine, node: ContainerNode
) -> None:
    docker.run("run", "-d", "--name=web", *SLEEP)

    def state() -> str:
        return str(docker.ask("/containers/web/json")["State"]["Status"])

    stopped = node.done("container.stop", container="web", grace_seconds=0)
    assert state() == "exited"
    assert stopped.after is not None
    assert stopped.after["state"] == "exited"
    node.undo(stopped)
    assert state() == "running"
    paused = node.done("container.pause", container="web")
    assert state() == "paused"
    node.undo(paused)
    assert state() == "running"
    before = docker.ask("/containers/web/json")["State"]["Pid"]
    node.done("container.restart", container="web", grace_seconds=0)
    assert docker.ask("/containers/web/json")["State"]["Pid"] not in {0, before}
    renamed = node.done("container.rename", container="web", name="www")
    assert docker.ask("/containers/www/json")["Name"] == "/www"
    node.undo(renamed)
    killed = node.done("container.kill", container="web")
    assert killed.after is not None
    assert killed.after["exit_code"] == 137
    gone = node.done("container.remove", container="web")
    assert gone.after == {"exists": False}


def test_limits_are_changed_and_put_back(docker: Engine, node: ContainerNode) -> None:
    docker.run("run", "-d", "--name=web", *SLEEP)

    def limits() -> tuple[int, int, int, str]:
        host = docker.ask("/containers/web/json")["HostConfig"]
        pids = max(0, host["PidsLimit"] or 0)
        return host["NanoCpus"], max(0, host["Memory"]), pids, host["RestartPolicy"]["Name"]

    run = node.done(
        "container.update", container="web", cpus=0.5, memory_mib=64, pids=40, restart="always"
    )
    assert limits() == (500_000_000, 64 << 20, 40, "always")
    node.undo(run)
    cpus, memory, pids, restart = limits()
    # Docker cannot take these limits away: all that the node has is as good.
    host = node.facts.host.get()
    assert (cpus, memory) == (host.cpus * 10**9, host.memory_bytes)
    assert (pids, restart) == (0, "no")
    assert docker.ask("/containers/web/json")["State"]["Status"] == "running"


def test_a_container_is_made_of_the_schema_and_of_nothing_else(
    docker: Engine, node: ContainerNode
) -> None:
    docker.run("network", "create", "front")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = node.done(
        "container.run",
        container="web", image=IMAGE, command=["httpd", "-f", "-p", "80", "-h", "/"],
        env=["TEAM=red"], ports=[f"127.0.0.1:{port}:80/tcp"], volumes=["narthex_data:/data:ro"],
        networks=["front"], cpus="0.5", memory_mib="32", pids=20, labels=["team=red"],
        read_only=True, drop_capabilities=False, restart="unless-stopped",
    )  # fmt: skip
    told = docker.ask("/containers/web/json")
    host = told["HostConfig"]
    assert told["Config"]["Env"][0] == "TEAM=red"
    assert told["Config"]["Labels"] == {"team": "red"}
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (500_000_000, 32 << 20, 20)
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert not host["Binds"]
    assert not host["CapAdd"]
    assert not host["Devices"]
    assert not host["PidMode"]
    assert told["Mounts"][0]["Name"] == "narthex_data"
    assert told["Mounts"][0]["RW"] is False
    # It serves: the port is really there, and a plan for the same one is refused now.
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(RefusedError, match=f"port {port}/tcp is taken"):
        node.plan(
            "container.run", container="two", image=IMAGE, ports=[f"127.0.0.1:{port}:80/tcp"]
        )
    node.undo(run)
    assert node.ask("container.list")["containers"] == []
    node.done("volume.remove", volume="narthex_data")
    node.done("container-network.remove", network="front")


def test_a_volume_that_is_the_hosts_disk_is_not_used(docker: Engine, node: ContainerNode) -> None:
    options = ("--opt=type=none", "--opt=o=bind", "--opt=device=/etc")
    docker.run("volume", "create", *options, "sneaky")
    with pytest.raises(RefusedError, match="may be a folder of the host"):
        node.plan("container.run", container="x", image=IMAGE, volumes=["sneaky:/x"])
    with pytest.raises(RefusedError, match="reaches past the engine"):
        node.plan("container.run", container="x", image=IMAGE, networks=["host"])
    docker.run("volume", "rm", "sneaky")


def test_what_is_protected_is_left_alone(docker: Engine, node: ContainerNode) -> None:
    docker.run("run", "-d", "--name=db", "--label=narthex.protected=true", *SLEEP)
    for verb in ("stop", "restart", "kill", "remove", "pause"):
        with pytest.raises(RefusedError, match="is protected"):
            node.plan(f"container.{verb}", container="db")


def test_prunes_remove_exactly_what_they_listed(docker: Engine, node: ContainerNode) -> None:
    docker.run("volume", "create", "spare")
    docker.run("run", "-d", "--name=web", "--volume=used:/data", *SLEEP)
    plan = node.plan("volume.prune", named=True)
    assert any(note.startswith("spare: 0 B") for note in plan.notes)
    execution = node.begin("volume.prune", {"named": True})
    # Made while somebody reads the plan: it was not shown, so it stays... the run is refused.
    docker.run("volume", "create", "newer")
    assert execution.carry_out().state is RunState.FAILED
    node.done("volume.prune", named=True)
    names = [one["name"] for one in node.ask("volume.list")["volumes"]]
    assert names == ["used"]
    with pytest.raises(RefusedError, match="used by web"):
        node.plan("volume.remove", volume="used")
    docker.run("rm", "--force", "web")
    node.done("volume.remove", volume="used")
    docker.run("network", "create", "lone")
    node.done("container-network.prune")
    assert "lone" not in [one["name"] for one in node.ask("container-network.list")["networks"]]


def test_removal_names_the_volumes_that_it_orphans(docker: Engine, node: ContainerNode) -> None:
    docker.run("run", "-d", "--name=db", "--volume=pg:/data", "--volume=/cache", *SLEEP)
    with pytest.raises(RefusedError, match="db runs"):
        node.plan("container.remove", container="db")
    plan = node.plan("container.remove", container="db", force=True, anonymous_volumes=True)
    assert any(one.startswith("no container uses the volume pg (0 B) then") for one in plan.notes)
    assert any(one.startswith("lost with it: the nameless volume") for one in plan.notes)
    node.done("container.remove", container="db", force=True, anonymous_volumes=True)
    assert [one["name"] for one in node.ask("volume.list")["volumes"]] == ["pg"]
    docker.run("volume", "rm", "pg")


def test_networks_take_and_lose_members(docker: Engine, node: ContainerNode) -> None:
    node.done("container-network.create", network="back", internal=True)
    docker.run("network", "create", "front")
    docker.run("run", "-d", "--name=web", "--network=front", IMAGE, "sleep", "1000")
    run = node.done("container-network.connect", network="back", container="web")
    assert run.after == {"exists": True, "used_by": "web"}
    with pytest.raises(RefusedError, match="used by web"):
        node.plan("container-network.remove", network="back")
    node.undo(run)
    node.done("container-network.remove", network="back")
    docker.run("rm", "--force", "web")
    docker.run("network", "rm", "front")


def test_an_image_is_pulled_with_progress_and_undone(
    docker: Engine, node: ContainerNode, held: Registry
) -> None:
    name = f"127.0.0.1:{held.port}/team/app:1"
    docker.run("tag", IMAGE, name)
    docker.run("push", name)
    docker.run("rmi", name, IMAGE)
    told: list[Run] = []
    run = node.begin("image.pull", {"image": name}, told).carry_out()
    assert run.state is RunState.SUCCEEDED, run.error
    assert "Downloaded newer image" in run.steps[0].output
    assert docker.ask(f"/images/{name}/json")["RepoTags"] == [name]
    node.done("image.tag", image=name, name=IMAGE)
    assert IMAGE in docker.ask(f"/images/{name}/json")["RepoTags"]
    node.undo(run)
    tags = [tag for one in node.ask("image.list")["images"] for tag in one["tags"]]
    assert tags == [IMAGE]


def test_a_pull_is_cancelled(
    docker: Engine, node: ContainerNode, held: Registry, tmp_path: Path
) -> None:
    name = f"127.0.0.1:{held.port}/team/big:1"
    (tmp_path / "noise").write_bytes(os.urandom(4 << 20))
    docker.run("create", "--name=base", *SLEEP)
    docker.run("cp", str(tmp_path / "noise"), "base:/noise")
    docker.run("commit", "base", name)
    docker.run("push", name)
    docker.run("rm", "base")
    docker.run("rmi", name)
    held.slow.set()
    told: list[Run] = []
    execution = node.begin("image.pull", {"image": name}, told)

    def cancel() -> None:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if told and "Downloading" in told[-1].steps[0].output:
                break
            time.sleep(0.05)
        execution.cancelled.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    began = time.monotonic()
    run = execution.carry_out()
    thread.join()
    assert run.state is RunState.CANCELLED
    assert any("bytes" in one.steps[0].output for one in told)
    assert time.monotonic() - began < 20
    # The engine has given up too: it no longer reads from the registry.
    assert held.hung_up.wait(10)
    assert name not in [tag for one in node.ask("image.list")["images"] for tag in one["tags"]]


def test_a_pull_that_cannot_be_fails_in_the_engines_words(
    docker: Engine, node: ContainerNode, held: Registry
) -> None:
    run = node.do("image.pull", image=f"127.0.0.1:{held.port}/team/none:1")
    assert run.state is RunState.FAILED
    assert "manifest" in run.error or "not found" in run.error


def test_images_are_removed_by_name_and_pruned(docker: Engine, node: ContainerNode) -> None:
    docker.run("tag", IMAGE, "spare:1")
    docker.run("run", "-d", "--name=web", *SLEEP)
    plan = node.plan("image.remove", image="spare:1")
    assert plan.notes[0] == f"only this name goes; the image stays as {IMAGE}"
    node.done("image.remove", image="spare:1")
    with pytest.raises(RefusedError, match="used by web"):
        node.plan("image.remove", image=IMAGE)
    docker.run("commit", "web")
    plan = node.plan("image.prune")
    assert any(one.startswith("nameless ") for one in plan.notes)
    node.done("image.prune")
    assert [one["tags"] for one in node.ask("image.list")["images"]] == [[IMAGE]]
    usage = {one["kind"]: one for one in node.ask("container.disk-usage")["usage"]}
    assert usage["images"]["count"] == 1
    assert usage["containers"]["active"] == 1


def test_an_engine_that_hangs_costs_five_seconds_and_says_so(
    docker: Engine, node: ContainerNode
) -> None:
    docker.run("run", "-d", "--name=web", *SLEEP)
    docker.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        listed = node.ask("container.list")
        assert time.monotonic() - began < 5.5
        assert listed["containers"] == []
        problems = {one["name"]: one["problem"] for one in listed["engines"]}
        assert "docker does not answer: it took too long" in problems["docker"]
        began = time.monotonic()
        with pytest.raises(RefusedError, match="docker does not answer"):
            node.plan("container.stop", container="web")
        assert time.monotonic() - began < 5.5
    finally:
        docker.process.send_signal(signal.SIGCONT)
    time.sleep(3.1)
    assert [one["name"] for one in node.ask("container.list")["containers"]] == ["web"]
