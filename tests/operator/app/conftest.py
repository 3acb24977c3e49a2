"""A whole operator for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from narthex_operator.config import OperatorConfig
from narthex_operator.security.signer_client import SignerClient
from realoperator import Operator, make_config, run_operator


@pytest.fixture
def config(tmp_path: Path, signer: SignerClient) -> OperatorConfig:
    return make_config(tmp_path, signer.socket)


@pytest.fixture
def operator(config: OperatorConfig) -> Iterator[Operator]:
    with run_operator(config) as one:
        yield one


@pytest.fixture
def operator_on_each(
    tmp_path: Path, signer: SignerClient, empty_database_url: str
) -> Iterator[Operator]:
    """The operator on SQLite and on PostgreSQL."""
    with run_operator(
        make_config(tmp_path, signer.socket, database_url=empty_database_url)
    ) as one:
        yield one
