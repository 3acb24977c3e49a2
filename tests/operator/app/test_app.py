"""The whole operator over real TLS."""

from realoperator import Operator


def test_it_is_healthy_and_ready(operator: Operator) -> None:
    assert operator.call("GET", "/-/healthy").json() == {"status": "healthy"}
    assert operator.call("GET", "/-/ready").json() == {"status": "ready"}


def test_the_script_token_lists_nodes(operator: Operator) -> None:
    reply = operator.call("GET", "/api/v1/nodes")
    assert reply.status_code == 200
    assert reply.json() == {"items": [], "next": None}
