"""Operator and actor as processes of their own, to be killed with -9 and started again."""

import contextlib
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from narthex_exporter.contract.wire import new_run_id
from narthex_operator.config import OperatorConfig
from realnode import RealNode
from rig import until

PROGRAM = Path(__file__).with_name("operatorprogram.py")
COUNTER = (
    "import signal, time\n"
    "signal.signal(signal.SIGUSR1, lambda *_: print('hit', flush=True))\n"
    "print('ready', flush=True)\n"
    "while True: time.sleep(60)\n"
)


@dataclass
class Counter:
    """A process that counts the signals it gets: how often something was executed."""

    out: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        with self.out.open("wb") as file:
            self.process = subprocess.Popen([sys.executable, "-Ic", COUNTER], stdout=file)
        until(lambda: "ready" in self.out.read_text(), what="the process is ready", seconds=60)

    @property
    def params(self) -> dict[str, Any]:
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        ticks = int(text.rpartition(")")[2].split()[19])
        return {"pid": self.process.pid, "start_ticks": ticks, "signal": "USR1"}

    @property
    def hits(self) -> int:
        return self.out.read_text().count("hit")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Program:
    """One process that may be killed at any moment."""

    log: Path
    argv: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [*self.argv, *more], stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class ActorProgram(Program):
    """The root actor of a node, as the supervisor starts it."""

    def __init__(self, node: RealNode) -> None:
        super().__init__(
            log=node.folder / "actor.log",
            argv=(
                sys.executable, "-Im", "narthex_exporter", "actor",
                "--state.dir", str(node.folder), "--actor.state-dir", str(node.folder / "actor"),
                "--actor.socket", str(node.socket),
                "--policy.file", str(node.folder / "policy.yaml"),
            ),
        )  # fmt: skip


class OperatorProgram(Program):
    """The operator, and a script that uses its API."""

    def __init__(self, config: OperatorConfig, token: str) -> None:
        self.config = config
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(config.pki_dir / "ca.pem")
        self.session.headers["Authorization"] = f"Bearer {token}"
        file = config.home / "operator.json"
        file.write_text(config.model_dump_json())
        super().__init__(
            log=config.home / "operator.log", argv=(sys.executable, "-I", str(PROGRAM), str(file))
        )

    def ready(self, *, seconds: float = 90) -> None:
        def look() -> bool:
            assert self.alive, self.log.read_text()[-3000:]
            with contextlib.suppress(requests.RequestException):
                return self.call("GET", "/api/v1/nodes").status_code == 200
            return False

        until(look, seconds=seconds, what="the operator answers")

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        url = self.config.web.external_url + path
        # A connection each: a killed operator leaves none behind that could be taken again.
        return self.session.request(
            method, url, timeout=20, **{"headers": {"Connection": "close"}, **more}
        )

    def plan(self, name: str, params: dict[str, Any]) -> str | None:
        """Plan; None where somebody has just been killed."""
        with contextlib.suppress(requests.RequestException):
            path = f"/api/v1/nodes/web-1/actions/{name}/plans"
            reply = self.call("POST", path, json={"params": params})
            if reply.status_code == 200:
                return str(reply.json()["plan"]["digest"])
        return None

    def submit(self, name: str, params: dict[str, Any], digest: str, run: str) -> int:
        """Ask for a run; 0 where there was no answer."""
        body = {"params": params, "plan": digest, "reason": "a trial", "run_id": run}
        with contextlib.suppress(requests.RequestException):
            path = f"/api/v1/nodes/web-1/actions/{name}/runs"
            return self.call("POST", path, json=body).status_code
        return 0

    def run(self, run: str) -> dict[str, Any] | None:
        """Look a run up; None where there is none, or no answer."""
        with contextlib.suppress(requests.RequestException):
            reply = self.call("GET", f"/api/v1/runs/{run}")
            if reply.status_code == 200:
                found: dict[str, Any] = reply.json()
                return found
        return None

    def planned(self, name: str, params: dict[str, Any], *, seconds: float = 60) -> str:
        """Plan, again and again until somebody answers."""
        deadline = time.monotonic() + seconds
        while True:
            digest = self.plan(name, params)
            if digest is not None:
                return digest
            assert time.monotonic() < deadline, "no plan"
            time.sleep(0.05)


def new_run() -> str:
    return new_run_id()
