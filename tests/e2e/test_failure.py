"""What goes wrong is told in words, mends itself where it can, and loses nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rig import ROOT, Product, free_base, make_product, processes_of, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def told(done: Any) -> str:
    """Everything that a person saw, which must hold no traceback."""
    text: str = done.stdout + done.stderr
    assert "Traceback" not in text
    return text


@pytest.fixture
def idle(tmp_path: Path) -> Product:
    """An installation that was never started."""
    return make_product(tmp_path)


def test_a_second_up_says_who_runs_already(product: Product) -> None:
    done = product.script("up", "--detach")
    assert done.returncode == 1
    assert "runs already" in told(done)
    assert "script/down" in told(done)


def test_a_taken_port_is_named_with_its_holder(idle: Product) -> None:
    base = int(idle.environment["NARTHEX_PORT_BASE"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + 1))
        taken.listen()
        done = idle.script("up", "--detach")
    assert done.returncode == 1
    assert f"port {base + 1}" in told(done)
    assert str(os.getpid()) in told(done)
    assert not processes_of(idle.home)


def test_without_prometheus_it_says_how_to_get_it(idle: Product, tmp_path: Path) -> None:
    idle.environment["PATH"] = str(tmp_path)
    done = idle.narthex("up")
    assert done.returncode == 1
    assert "Prometheus is not installed" in told(done)
    assert "apt-get install" in told(done) or "script/up" in told(done)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", small], check=True)
    try:
        full = make_product(small)
        done = full.script("up", "--detach")
        assert done.returncode == 1
        assert "MiB are free" in told(done)
        assert not processes_of(full.home)
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_home_that_cannot_be_written_is_told(idle: Product, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    idle.environment["NARTHEX_HOME"] = str(tmp_path / "file" / "home")
    assert "cannot write" in told(idle.narthex("up"))


def join_token(product: Product, name: str) -> dict[str, Any]:
    found: dict[str, Any] = product.api("/api/v1/nodes", {"name": name, "address": "127.0.0.1:9"})
    return found


def join(product: Product, pin: str, token: str, folder: Path) -> Any:
    return product.narthex(
        "join", "--operator", product.run.panel.url, "--ca-pin", pin,
        "--state.dir", str(folder), "--token-file", "-", stdin=f"{token}\n",
    )  # fmt: skip


def test_a_join_token_works_once_and_only_with_the_right_ca(
    product: Product, tmp_path: Path
) -> None:
    added = join_token(product, "other-1")
    wrong = "sha256:" + "0" * 64
    assert "pin" in told(join(product, wrong, added["token"], tmp_path / "a")).lower()
    forged = added["token"][:-6] + "AAAAAA"
    done = join(product, added["ca_pin"], forged, tmp_path / "b")
    assert done.returncode == 1
    assert "token" in told(done)
    assert not (tmp_path / "b" / "node.json").exists()
    assert join(product, added["ca_pin"], added["token"], tmp_path / "c").returncode == 0
    again = join(product, added["ca_pin"], added["token"], tmp_path / "d")
    assert again.returncode == 1
    assert "token" in told(again)
    product.api("/api/v1/nodes/other-1", method="DELETE")


def parts(product: Product) -> dict[str, int]:
    run = product.run
    found = dict(run.pids.model_dump())
    for node in run.nodes:
        found |= {
            f"exporter@{node.name}": node.pids.exporter,
            f"actor@{node.name}": node.pids.actor,
        }
    return found


@pytest.mark.parametrize(
    "part", ["signer", "logstore", "prometheus", "alertmanager", "operator", "exporter@", "actor@"]
)
def test_a_part_that_is_killed_comes_back(product: Product, part: str) -> None:
    name = next(found for found in parts(product) if found.startswith(part))
    old = parts(product)[name]
    os.kill(old, signal.SIGKILL)
    until(lambda: parts(product)[name] not in {0, old}, what=f"{name} is started anew")
    until(lambda: product.narthex("doctor").returncode == 0, seconds=40, what="all is well again")


def query(product: Product, name: str, params: dict[str, Any]) -> Any:
    node = product.run.nodes[0].name
    return product.api(f"/api/v1/nodes/{node}/queries/{name}", {"params": params})


@pytest.fixture
def stubborn() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ignores the request to end, so that a run on it takes its full time."""
    code = "import signal as s, time; s.signal(15, s.SIG_IGN); print(flush=True); time.sleep(99)"
    process = subprocess.Popen([sys.executable, "-Ic", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def start_run(product: Product, pid: int) -> dict[str, Any]:
    node = product.run.nodes[0].name
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    params = {"pid": pid, "start_ticks": ticks, "signal": "TERM"}
    path = f"/api/v1/nodes/{node}/actions/process.signal"
    plan = product.api(f"{path}/plans", {"params": params})
    found: dict[str, Any] = product.api(
        f"{path}/runs",
        {"params": params, "plan": plan["plan"]["digest"], "reason": "a test"},
    )
    return found


def test_an_operator_killed_in_mid_run_comes_back_and_tells_the_true_outcome(
    product: Product, stubborn: subprocess.Popen[bytes]
) -> None:
    run = start_run(product, stubborn.pid)
    until(lambda: product.api(f"/api/v1/runs/{run['id']}")["state"] == "running", what="it runs")
    os.kill(product.run.pids.operator, signal.SIGKILL)

    def outcome() -> dict[str, Any] | None:
        try:
            now: dict[str, Any] = product.api(f"/api/v1/runs/{run['id']}")
        except (urllib.error.URLError, OSError):
            return None
        return now if now["state"] not in {"queued", "running", "unknown"} else None

    now = until(outcome, seconds=60, what="the run's outcome is known")
    assert now is not None
    assert stubborn.poll() is None
    assert now["state"] == "failed"
    assert "alive" in json.dumps(now)
    rows = product.api(f"/api/v1/audit?run={run['id']}")["items"]
    assert [row["event"] for row in rows].count("run.requested") == 1
    assert [row["event"] for row in rows].count("run.finished") == 1


def moved_ports_a_lost_token_and_a_removed_node_are_mended(product: Product) -> None:
    """Start on other ports, without the files that a crash may have kept from being written."""
    product.environment["NARTHEX_PORT_BASE"] = str(free_base())
    for name in ("api.token", "admin.json"):
        (product.home / "secrets" / name).unlink()
    started = product.script("up", "--detach")
    assert started.returncode == 0, started.stdout + started.stderr
    node = product.run.nodes[0]
    seen = product.api(f"/api/v1/nodes/{node.name}")
    assert node.url == f"https://{seen['address']}"
    identity = json.loads((product.home / "nodes" / node.name / "node.json").read_text())
    assert identity["operator_url"] == product.run.panel.url
    assert json.loads(Path(product.run.panel.credentials_file).read_text())["password"]
    assert product.narthex("doctor").returncode == 0, product.narthex("doctor").stdout
    product.api(f"/api/v1/nodes/{node.name}", method="DELETE")
    assert product.script("down").returncode == 0
    again = product.script("up", "--detach")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "joins anew" in again.stdout
    assert product.run.nodes[0].id != node.id
    assert product.script("down").returncode == 0


def stopped_by_ctrl_c(product: Product, *, until_ready: bool) -> None:
    """Start in the foreground, as in a terminal, and press Ctrl-C."""
    with subprocess.Popen(
        [ROOT / "script" / "up"],
        env=product.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as terminal:
        assert terminal.stdout is not None
        wanted = "Stop with Ctrl-C" if until_ready else "starting operator"
        said = ""
        while wanted not in said:
            line = terminal.stdout.readline()
            assert line, said
            said += line
        os.killpg(terminal.pid, signal.SIGINT)
        rest = terminal.stdout.read()
    assert terminal.returncode == 0
    assert "Traceback" not in said + rest
    assert not processes_of(product.home)
    assert not (product.home / "run.json").exists()


def test_a_killed_supervisor_leaves_nothing_and_the_next_start_has_lost_nothing(
    idle: Product,
) -> None:
    first = idle.script("up", "--detach")
    assert first.returncode == 0, first.stdout + first.stderr
    try:
        node = idle.run.nodes[0]
        rows = idle.api("/api/v1/audit?limit=200")["items"]
        supervisor = int((idle.home / "up.lock").read_text())
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: not processes_of(idle.home), what="every part has ended")
        assert idle.narthex("status").returncode == 1
        assert "nothing runs" in told(idle.narthex("status"))
        assert "was killed" in told(idle.narthex("doctor"))
        second = idle.script("up", "--detach")
        assert second.returncode == 0, second.stdout + second.stderr
        assert idle.run.nodes[0].id == node.id
        seen = {row["seq"]: row["hash"] for row in idle.api("/api/v1/audit?limit=200")["items"]}
        assert {row["seq"]: row["hash"] for row in rows}.items() <= seen.items()
        assert idle.script("down").returncode == 0
        moved_ports_a_lost_token_and_a_removed_node_are_mended(idle)
        stopped_by_ctrl_c(idle, until_ready=True)
        stopped_by_ctrl_c(idle, until_ready=False)
    finally:
        idle.script("down")
    assert not processes_of(idle.home)


def test_down_where_nothing_runs_says_so(idle: Product) -> None:
    done = idle.script("down")
    assert done.returncode == 0
    assert "nothing runs" in told(done)


def test_status_where_nothing_runs_says_so(idle: Product) -> None:
    done = idle.narthex("status")
    assert done.returncode == 1
    assert "script/up" in told(done)


def test_nothing_waits_for_a_terminal(product: Product) -> None:
    supervisor = psutil.Process(int((product.home / "up.lock").read_text()))
    assert supervisor.terminal() is None
    assert time.time() - supervisor.create_time() < 3600
