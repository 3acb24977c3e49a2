"""Asking many nodes through the API: the whole list is judged before anybody is asked."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from narthex_operator.db.models import Node
from realnode import RealNode
from realoperator import Operator

PATH = "/api/v1/queries/host.info"


def ask(operator: Operator, body: Any, path: str = PATH) -> Any:
    return operator.call("POST", path, json=body)


def test_nodes_answer_together(operator: Operator, tmp_path: Path) -> None:
    database = operator.parts.core.database
    nodes = [
        RealNode(tmp_path / name, operator.parts.core.signer, id=f"id-{name}", name=name)
        for name in ("web-1", "web-2")
    ]
    with nodes[0].front(), nodes[0].actor():
        for node in nodes:
            node.enter(database)
        found = ask(operator, {"nodes": ["web-1", "id-web-2"], "params": {}})
    with database.session() as session:
        session.execute(delete(Node))
    assert found.status_code == 200, found.text
    answer = found.json()
    assert answer["summary"] == "1 node: same; 1 gave no answer"
    assert answer["groups"][0]["nodes"] == ["web-1"]
    assert answer["groups"][0]["result"]["cpus"] >= 1
    assert [one["node_name"] for one in answer["failures"]] == ["web-2"]
    assert answer["failures"][0]["kind"] == "unreachable"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"nodes": []}, 422),
        ({}, 422),
        ({"nodes": "web-1"}, 422),
        ({"nodes": ["*"]}, 403),
        ({"nodes": ["ghost"]}, 403),
        ({"nodes": [f"x{n}" for n in range(10_001)]}, 422),
        ({"nodes": ["a" * 257]}, 422),
        ({"nodes": ["web-1"], "more": 1}, 422),
        ({"nodes": ["web-1"], "params": {"more": 1}}, 422),
    ],
)
def test_a_wrong_list_is_refused(operator: Operator, body: Any, status: int) -> None:
    found = ask(operator, body)
    assert found.status_code == status, found.text
    assert found.headers["Content-Type"] == "application/problem+json"


def test_a_query_that_is_none_is_not_found(operator: Operator) -> None:
    assert ask(operator, {"nodes": ["web-1"]}, "/api/v1/queries/no.such").status_code == 404
