"""Runs a real log store on a port of its own."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lokilike import Client
from narthex_logstore.app import Config, running


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with running(Config(port=0, path=tmp_path / "store")) as store:
        made = Client(f"http://127.0.0.1:{store.port}")
        with made.session:
            yield made


@pytest.fixture
def now() -> int:
    return time.time_ns() // 10**9 * 10**9
