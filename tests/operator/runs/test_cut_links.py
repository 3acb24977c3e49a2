"""A link that is cut behind the request: done once, found out, never done again.

SECURITY.md's test 73.
"""

import contextlib
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from narthex_exporter.contract.wire import RunState
from narthex_operator.db.models import Node
from narthex_operator.services.access import local_actor
from realnode import RealNode
from rig import until

ADMIN = local_actor("tests")
NAME = "process.signal"


@pytest.fixture
def target(tmp_path: Path) -> Any:
    """A process that writes a line for each signal that it gets."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('hit', flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(60)\n"
    )
    out = tmp_path / "hits"
    with out.open("wb") as file:
        process = subprocess.Popen(["python3", "-Ic", code], stdout=file)
    until(lambda: "ready" in out.read_text(), what="the process is ready")
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    yield {"pid": process.pid, "start_ticks": int(ticks), "signal": "USR1"}, out
    process.kill()
    process.wait()


@pytest.mark.parametrize("trials", [10, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_73_a_cut_link_means_done_once_and_found_out(
    desk: Any, node: RealNode, target: tuple[dict[str, Any], Path], trials: int
) -> None:
    params, out = target
    inner = node._exporter()

    def cutting(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Hand the request on, then lose the reply of every run."""
        reply = inner(environ, start)
        if environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"].endswith("/runs"):
            with contextlib.closing(reply):  # type: ignore[type-var]
                b"".join(reply)
            start("200 OK", [("Content-Length", "9")])
            return [b"{"]
        return reply

    with node.front(cutting), node.actor():
        with desk.database.session() as session:
            session.execute(update(Node).values(address=node.address))
        for trial in range(trials):
            plan = desk.runs.plan(ADMIN, "web-1", NAME, params)
            run = desk.runs.submit(
                ADMIN, "web-1", NAME, params, plan=plan.plan.digest, reason="a cut link"
            )
            done = desk.ended(run.id)
            assert done.state is RunState.SUCCEEDED, (trial, done.error)
            assert desk.events(run.id) == ["run.requested", "run.finished"]
    until(lambda: out.read_text().count("hit") >= trials, what="every signal has arrived")
    assert out.read_text().count("hit") == trials
