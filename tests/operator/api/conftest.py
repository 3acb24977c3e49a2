"""One operator for all tests of a module: they ask, and change little."""

from collections.abc import Iterator

import pytest

from realoperator import Operator, make_config, run_operator
from signing import signing


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operator")
    with signing(folder) as signer, run_operator(make_config(folder, signer.socket)) as one:
        yield one
