"""The real programs: an operator that is killed in mid-wave, and the command line against it."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.operator.app.test_process import Program
from tests.operator.fleetruns.conftest import SIGNAL, executions, make_nodes

from narthex_operator.config import OperatorConfig
from narthex_operator.db import open_database
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.bootstrap import bootstrap
from realnode import RealNode
from realoperator import Operator, make_config, run_operator
from rig import until


@pytest.fixture
def config(tmp_path: Path, signer: SignerClient) -> OperatorConfig:
    return make_config(tmp_path, signer.socket)


@pytest.fixture
def enrolled(tmp_path: Path, signer: SignerClient, config: OperatorConfig) -> Iterator[Any]:
    first = bootstrap(config)
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(contextlib.closing(open_database(config.database_url)))
        yield first, make_nodes(tmp_path / "nodes", signer, database, 6, stack)


# Killed between its mark and its first byte, a member is not known until its ticket is too old.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(4))
def test_one_that_is_killed_at_any_point_goes_on_and_runs_no_member_twice(
    config: OperatorConfig, enrolled: Any, victim: dict[str, Any], seed: int
) -> None:
    first, nodes = enrolled
    program = Program(config, first.api_token)
    after = random.Random(seed).uniform(0.0, 2.5)  # noqa: S311 - a test's
    with program.running() as process:
        body = {"action": SIGNAL, "params": victim, "on": "all"}
        plan = program.call("POST", "/api/v1/fleet-runs/plans", json=body)
        assert plan["members"] == 6, plan
        body = {"plan": plan["digest"], "reason": "a test", "strategy": {"batch": "2"}}
        run = program.call("POST", "/api/v1/fleet-runs", json=body)
        path = f"/api/v1/fleet-runs/{run['id']}"
        time.sleep(after)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with program.running():

        def ended() -> Any:
            found = program.call("GET", path)
            return found if found["state"] in {"succeeded", "failed", "halted"} else None

        done = until(ended, seconds=240, what="the fleet run is over")
        audit = program.call("GET", f"/api/v1/audit?run={run['id']}")
    states = {one["node_name"]: one["state"] for one in done["members"]}
    counts = {node.name: executions(node) for node in nodes}
    assert max(counts.values()) == 1, after
    assert {name for name, count in counts.items() if count} == {
        name for name, state in states.items() if state == "succeeded"
    }, (after, states)
    assert audit["intact"]
    # Nothing but a member that was lost on its way keeps the others from their turn.
    if done["state"] != "succeeded":
        assert (done["state"], "lost" in states.values()) == ("halted", True), (after, states)
        return
    assert set(counts.values()) == {1}
    events = [row["event"] for row in audit["items"]]
    assert events == ["fleet-run.finished", "fleet-run.requested"]


@pytest.fixture
def operator(config: OperatorConfig, enrolled: Any) -> Iterator[Operator]:
    first, _ = enrolled
    with run_operator(config) as one:
        one.session.headers["Authorization"] = f"Bearer {first.api_token}"
        one.token = first.api_token  # type: ignore[attr-defined]
        yield one


def narthex(operator: Any, *arguments: str, stdin: str = "", **environment: str) -> Any:
    return subprocess.run(
        [sys.executable, "-Im", "narthex_exporter", *arguments,
         "--ca", str(operator.config.pki_dir / "ca.pem")],
        env={
            **os.environ,
            "NARTHEX_URL": operator.config.web.external_url,
            "NARTHEX_TOKEN": operator.token,
            # Nothing of these may lead the request, or its token, elsewhere.
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "REQUESTS_CA_BUNDLE": "/dev/null",
            **environment,
        },
        capture_output=True, text=True, input=stdin, timeout=60, check=False,
    )  # fmt: skip


def test_the_command_line_shows_the_plan_asks_and_ends_with_what_became_of_it(
    operator: Operator, enrolled: Any, victim: dict[str, Any]
) -> None:
    nodes: list[RealNode] = enrolled[1]
    for number, node in enumerate(nodes):
        body = {"labels": {"env": "prod" if number < 3 else "test"}, "group": "web"}
        assert operator.call("PATCH", f"/api/v1/nodes/{node.name}", json=body).ok
    words = [SIGNAL, *(f"{name}={value}" for name, value in victim.items())]
    done = narthex(operator, "run", *words, "--on", 'env="prod"', "--batch", "34%",
                   stdin="y\na test\n")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 nodes: web-1, web-2, web-3" in done.stdout
    assert "SIGCONT" in done.stdout
    assert "succeeded: 3 succeeded" in done.stdout
    assert [executions(node) for node in nodes] == [1, 1, 1, 0, 0, 0]

    done = narthex(operator, "run", *words, "--on", "@web", "--canary", "1", "--yes", "--json",
                   "--reason", "a test")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["counts"] == {"succeeded": 6}
    assert found["waves"] == 2
    assert [executions(node) for node in nodes] == [2, 2, 2, 1, 1, 1]

    done = narthex(operator, "run", *words, "--on", "all", stdin="n\n")
    assert done.returncode == 1
    assert [executions(node) for node in nodes] == [2, 2, 2, 1, 1, 1]


def test_the_command_line_asks_many_and_groups_equal_answers(
    operator: Operator, enrolled: Any
) -> None:
    done = narthex(operator, "query", "host.info", "--on", "web-1,web-2")
    assert done.returncode == 0, done.stderr
    assert "2 nodes: web-1, web-2" in done.stdout
    done = narthex(operator, "query", "no.such", "--on", "web-1", "--json")
    assert done.returncode == 1
    assert "there is no query 'no.such'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--on", "*"], {}, "not understood"),
        (["--on", "web-9"], {}, "web-9"),
        ([], {}, "--on SELECTOR"),
        (["--on", "web-1"], {"NARTHEX_TOKEN": ""}, "NARTHEX_TOKEN"),
        (["--on", "web-1"], {"NARTHEX_URL": "http://127.0.0.1:1"}, "https://"),
        (["--on", "web-1"], {"NARTHEX_TOKEN": "nok_x_y"}, "token is unknown"),
        (["--on", "web-1", "--batch", "x"], {}, "strategy.batch"),
    ],
)  # fmt: skip
def test_the_command_line_says_what_is_wrong(
    operator: Operator,
    victim: dict[str, Any],
    arguments: list[str],
    environment: dict[str, str],
    words: str,
) -> None:
    params = [f"{name}={value}" for name, value in victim.items()]
    done = narthex(operator, "run", SIGNAL, *params, *arguments, "--yes", "--reason", "a test",
                   **environment)  # fmt: skip
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
