"""What Prometheus answers, read as a gate reads it."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from narthex_exporter.transport.server import Listener, Server, listen_tcp
from narthex_operator.clients.prometheus import prometheus_client
from narthex_operator.errors import InvalidError, UnreachableError
from narthex_operator.services.gates import Gates

Say = Callable[[str, Any], None]


@pytest.fixture
def prometheus() -> Iterator[tuple[Gates, Say]]:
    """A server that answers what a test says, as Prometheus does."""
    said: dict[str, Any] = {"status": "200 OK", "body": {}}

    def app(_environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = json.dumps(said["body"]).encode()
        start(said["status"], [("Content-Type", "application/json"),
                               ("Content-Length", str(len(body)))])  # fmt: skip
        return [body]

    def say(status: str, body: Any) -> None:
        said.update(status=status, body=body)

    sock = listen_tcp("127.0.0.1", 0)
    with Server(app=app, listeners=[Listener(sock=sock)]):
        port = sock.getsockname()[1]
        yield Gates(prometheus=prometheus_client(f"http://127.0.0.1:{port}")), say


def vector(*values: str) -> dict[str, Any]:
    rows = [{"metric": {"instance": f"i{n}"}, "value": [1.5, v]} for n, v in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": rows}}


def single(kind: str, value: str) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": [1.5, value]}}


@pytest.mark.parametrize(
    ("body", "holds", "told"),
    [
        (vector("1"), True, ""),
        (vector("1", "0"), False, '{instance="i1"} is 0'),
        (vector(), False, "no sample"),
        (vector("NaN"), False, "nan"),
        (single("scalar", "1"), True, ""),
        (single("scalar", "0"), False, "is 0"),
        (single("string", "1 node"), False, "nan"),
    ],
)
def test_a_gate_is_what_prometheus_says(
    prometheus: tuple[Gates, Say],
    body: Any,
    holds: bool,  # noqa: FBT001 - a case's
    told: str,
) -> None:
    gates, say = prometheus
    say("200 OK", body)
    verdict = gates.check("up")
    assert verdict.holds is holds
    assert told in verdict.told


def test_what_is_no_promql_is_refused_before_anything_runs(
    prometheus: tuple[Gates, Say],
) -> None:
    gates, say = prometheus
    say("400 Bad Request", {"status": "error", "error": "parse error: unexpected end of input"})
    with pytest.raises(InvalidError, match="parse error") as told:
        gates.validate("sum(")
    assert told.value.errors[0].path == "strategy.gate"
    say("503 Service Unavailable", {})
    with pytest.raises(UnreachableError):
        gates.validate("up")
    verdict = gates.check("up")
    assert not verdict.holds
    assert "503" in verdict.told
