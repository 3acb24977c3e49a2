"""Runs a real log store for the shipper to push to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from lokilike import Client

from narthex_logstore.app import Config, running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Client]:
    with running(Config(port=0, path=tmp_path / "store")) as started:
        client = Client(f"http://127.0.0.1:{started.port}")
        with client.session:
            yield client
