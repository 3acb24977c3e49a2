"""SECURITY.md 26: killed between accepting and executing, fifty times: nothing ran unrecorded."""

import contextlib
import http.client
import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from tests.exporter.actor.conftest import LIMITS, Client, Enrolled, running
from typing_extensions import override

from narthex_exporter.actor.app import build
from narthex_exporter.actor.audit import Audit, rows, verify_all
from narthex_exporter.actor.engine import Engine
from narthex_exporter.actor.node import Config
from narthex_exporter.actor.runner import Runner
from narthex_exporter.actor.store import RunStore
from narthex_exporter.contract.spec import Catalogue, Danger, Params, action
from narthex_exporter.contract.steps import Outcome, RunProgram, Step
from narthex_exporter.contract.wire import new_run_id
from narthex_exporter.transport.server import Listener, Server, listen_unix


class TouchParams(Params):
    path: str

    @property
    @override
    def resource(self) -> str:
        return f"mark/{self.path}"


@action(name="process.touch", title="Touch", danger=Danger.SAFE)
def touch(params: TouchParams, _facts: Any) -> Generator[Step, Outcome | None, None]:
    """Leave a mark that outlives whoever made it."""
    yield RunProgram(argv=("touch", "--", params.path))


CATALOGUE = Catalogue(actions={touch.name: touch})
TRIALS = 50


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(kind: type, name: str, *, when: Callable[..., bool] = lambda *_: True) -> None:
    _patch(kind, name, when, first=True)


def after(kind: type, name: str, *, when: Callable[..., bool] = lambda *_: True) -> None:
    _patch(kind, name, when, first=False)


def _patch(kind: type, name: str, when: Callable[..., bool], *, first: bool) -> None:
    real = getattr(kind, name)

    def wrapped(*args: Any, **more: Any) -> Any:
        if first and when(*args):
            die()
        result = real(*args, **more)
        if when(*args):
            die()
        return result

    setattr(kind, name, wrapped)


def accepted(_audit: Any, event: str) -> bool:
    return event == "run.accepted"


# Where to die, in the order of things; the last ones are chosen by chance.
POINTS: tuple[Callable[[], None], ...] = (
    lambda: before(RunStore, "accept"),
    lambda: after(RunStore, "accept"),
    lambda: before(Audit, "append", when=accepted),
    lambda: after(Audit, "append", when=accepted),
    lambda: before(Engine, "_begin"),
    lambda: after(Engine, "_begin"),
    lambda: before(Runner, "execute"),
    lambda: after(Runner, "execute"),
)


def serve(config: Config, point: int | None) -> None:
    """The actor, in a process of its own that is about to die."""
    if point is not None:
        POINTS[point]()
    with build(config, catalogue=CATALOGUE) as actor:
        sock = listen_unix(config.socket, mode=0o660)
        with Server(app=actor.wsgi, listeners=[Listener(sock=sock)], limits=LIMITS):
            threading.Event().wait()


def ask(client: Client, mark: Path, run_id: str) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        plan = client.plan(touch.name, path=str(mark)).json()["digest"]
        client.submit(touch.name, plan=plan, run_id=run_id, path=str(mark))


def listens(client: Client) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return client.raw("GET", "/api/v1/nonce").status == 204
    return False


def trial(enrolled: Enrolled, mark: Path, number: int) -> None:
    """Start an actor, ask it for a run, and have it killed somewhere on the way."""
    chance = random.Random(number)  # noqa: S311 - no secret, and repeatable
    # Half of the time at a known point, half of the time at any.
    point = number // 2 % len(POINTS) if number % 2 else None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.exporter.actor.test_killed"])
    process = context.Process(target=serve, args=(enrolled.config, point))
    process.start()
    client = Client(enrolled)
    deadline = time.monotonic() + 20
    while not listens(client):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    asking = threading.Thread(target=ask, args=(client, mark, new_run_id()))
    asking.start()
    if point is None:
        time.sleep(chance.uniform(0.0, 0.12))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    process.join(20)
    asking.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.timeout(110)
def test_whatever_was_executed_has_an_earlier_audit_row(enrolled: Enrolled) -> None:
    marks = enrolled.home / "marks"
    marks.mkdir()
    for number in range(TRIALS):
        trial(enrolled, marks / f"{number}", number)
        enrolled.config.socket.unlink(missing_ok=True)
    time.sleep(0.2)  # what the last one had started
    made = {path: path.stat().st_mtime for path in marks.iterdir()}
    record = enrolled.config.state_dir / "audit.jsonl"
    told = {row["params"]["path"]: row for row in rows(record) if row["event"] == "run.accepted"}
    # The kernel's clock for files is behind by a tick.
    late = [path for path, at in made.items() if _at(told[str(path)]) > at + 0.02]
    assert not late
    verify_all(record)
    # Both happened: runs that were accepted and not executed, and runs that were executed.
    assert 5 <= len(made) < len(told) < TRIALS, (len(made), len(told))
    with running(enrolled, catalogue=CATALOGUE) as rig:
        states = Counter(rig.client.get(row["op"]).json()["state"] for row in told.values())
    assert set(states) <= {"lost", "succeeded"}
    assert {path: path.stat().st_mtime for path in marks.iterdir()} == made
    verify_all(record)


def _at(row: dict[str, Any]) -> float:
    from datetime import datetime

    return datetime.fromisoformat(row["ts"]).timestamp()
