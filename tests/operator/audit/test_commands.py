"""`narthex audit` says in words what is proven, and ends with 1 where something contradicts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from sqlalchemy import text

from narthex_operator.commands import audit
from narthex_operator.config import OperatorConfig
from narthex_operator.security.signer_client import SignerClient
from realnode import RealNode
from realoperator import Operator, make_config, run_operator
from rig import until


@pytest.fixture
def operator(tmp_path: Path, signer: SignerClient) -> Iterator[Operator]:
    with run_operator(make_config(tmp_path, signer.socket)) as one:
        yield one


@pytest.fixture
def node(tmp_path: Path, signer: SignerClient, operator: Operator) -> Iterator[RealNode]:
    node = RealNode(tmp_path / "node", signer)
    with node.front():
        node.enter(operator.parts.core.database)
        yield node


def narthex_audit(config: OperatorConfig, *words: str) -> Result:
    file = config.home / "operator.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
    file.chmod(0o600)
    return CliRunner().invoke(audit, [*words, "--config.file", str(file)])


def test_what_is_intact_is_said_to_be(operator: Operator, node: RealNode) -> None:
    with node.actor():
        done = narthex_audit(operator.config, "verify")
    assert done.exit_code == 0, done.output
    assert "ledger: " in done.output
    assert "web-1: 2 rows, intact" in done.output


def test_a_node_that_is_away_is_named_and_is_no_contradiction(
    operator: Operator, node: RealNode
) -> None:
    done = narthex_audit(operator.config, "verify")
    assert done.exit_code == 0
    assert "web-1: not asked: the actor of node web-1 is not enabled" in done.output


def test_the_first_contradiction_is_told_and_a_nodes_can_be_settled(
    operator: Operator, node: RealNode
) -> None:
    with node.actor():
        assert narthex_audit(operator.config, "verify").exit_code == 0
    (node.folder / "actor" / "audit.jsonl").write_text("")
    with operator.parts.core.database.session() as session:
        session.execute(text("UPDATE audit SET outcome = 'x' WHERE seq = 2"))
    with node.actor():
        # Its record begins anew, with as many rows as it had or fewer, none of them the same.
        done = narthex_audit(operator.config, "verify")
        assert done.exit_code == 1
        assert "ledger: row 2 was changed; rows up to 1 are proven" in done.output
        assert "web-1: rewritten: " in done.output
        assert narthex_audit(operator.config, "accept", "web-1").exit_code == 2  # no reason
        assert narthex_audit(operator.config, "accept", "web-9", "--reason", "x").exit_code == 1
        settled = narthex_audit(operator.config, "accept", "web-1", "--reason", "reinstalled")
        assert settled.output == "settled for web-1: 1\n"
        assert "web-1: " in (again := narthex_audit(operator.config, "verify").output)
        assert "rewritten" not in again


def test_the_operator_proves_at_its_start_and_tells_it_as_metrics(
    operator: Operator, node: RealNode
) -> None:
    token = operator.secret("sd.token")

    def told() -> str:
        return operator.call("GET", "/metrics", headers=token).text

    until(lambda: "narthex_operator_audit_verified_timestamp_seconds 1." in told())
    text_ = told()
    assert "narthex_operator_audit_verified_intact 1.0" in text_
    assert "narthex_operator_audit_verified_up_to " in text_
    assert 'narthex_operator_runs_authorised_total{node="web-1"} 0.0' in text_
    assert 'narthex_operator_node_audit_problem{kind="unauthorised",node="web-1"} 0.0' in text_
