"""The real program: it ends when asked, and a killed one comes back to the truth."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from narthex_operator.config import OperatorConfig
from narthex_operator.db import open_database
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.bootstrap import bootstrap
from realnode import RealNode
from rig import until

SIGNAL = "/api/v1/nodes/web-1/actions/process.signal"


class Program:
    """The operator as its own process."""

    def __init__(self, config: OperatorConfig, token: str) -> None:
        self.url = config.web.external_url
        self.file = config.home / "operator.yaml"
        self.file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        self.log = config.home / "operator.log"
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(config.pki_dir / "ca.pem")
        self.session.headers["Authorization"] = f"Bearer {token}"
        self.process: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        argv = [sys.executable, "-Im", "narthex_exporter", "operator",
                "--config.file", str(self.file)]  # fmt: skip
        with self.log.open("ab") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            until(self.ready, seconds=30, what="the operator is ready")
            yield process
        finally:
            process.kill()
            process.wait()
            self.session.close()

    def ready(self) -> bool:
        try:
            return bool(self.session.get(f"{self.url}/-/ready", timeout=2).ok)
        except requests.RequestException:
            return False

    def call(self, method: str, path: str, **more: Any) -> Any:
        return self.session.request(method, self.url + path, timeout=10, **more).json()


@pytest.fixture
def program(config: OperatorConfig) -> Program:
    return Program(config, bootstrap(config).api_token)


def test_it_ends_when_it_is_asked_to(program: Program) -> None:
    with program.running() as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    text = program.log.read_text()
    assert "operator.stopped" in text
    assert "Traceback" not in text


@pytest.fixture
def stubborn() -> Iterator[dict[str, Any]]:
    """A process that does not end when it is asked to."""
    code = (
        "import signal,time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(99)"
    )
    process = subprocess.Popen([sys.executable, "-Ic", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    yield {"pid": process.pid, "start_ticks": int(ticks), "signal": "TERM"}
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("moment", ["at once", "while it runs"])
def test_one_that_is_killed_in_mid_run_tells_the_true_outcome_when_it_is_back(
    program: Program,
    config: OperatorConfig,
    signer: SignerClient,
    tmp_path: Path,
    stubborn: dict[str, Any],
    moment: str,
) -> None:
    node = RealNode(tmp_path / "node", signer)
    with node.front(), node.actor():
        with contextlib.closing(open_database(config.database_url)) as database:
            node.enter(database)
        with program.running() as process:
            plan = program.call("POST", f"{SIGNAL}/plans", json={"params": stubborn})
            body = {"params": stubborn, "plan": plan["plan"]["digest"], "reason": "a test"}
            run = program.call("POST", f"{SIGNAL}/runs", json=body)
            path = f"/api/v1/runs/{run['id']}"
            if moment == "while it runs":
                until(lambda: program.call("GET", path)["state"] == "running", what="the run runs")
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        with program.running():

            def ended() -> Any:
                found = program.call("GET", path)
                return found if found["finished_at"] else None

            done = until(ended, seconds=45, what="the outcome is known")
            rows = program.call("GET", f"/api/v1/audit?run={run['id']}")["items"]
    assert done["state"] == "failed"
    assert [row["event"] for row in rows] == ["run.finished", "run.requested"]
