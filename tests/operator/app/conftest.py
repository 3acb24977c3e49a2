"""A whole operator for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from narthex_operator.security.signer_client import SignerClient
from realoperator import Operator, make_config, run_operator


@pytest.fixture
def operator(tmp_path: Path, signer: SignerClient) -> Iterator[Operator]:
    with run_operator(make_config(tmp_path, signer.socket)) as one:
        yield one
