"""The shipper against the real store."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lokilike import Client

from narthex_exporter.logs.config import LogsConfig
from narthex_exporter.logs.shipper import Shipper


@contextlib.contextmanager
def shipping(folder: Path, url: str, **more: Any) -> Iterator[Shipper]:
    config = LogsConfig(journal=False, files=(f"{folder}/*.log",), **more.pop("config", {}))
    shipper = Shipper(
        config=config,
        spool=folder / "spool.sqlite3",
        push_url=url,
        labels={"node": "n1"},
        poll_seconds=0.05,
        **more,
    )
    shipper.start()
    try:
        yield shipper
    finally:
        shipper.stop()


def until(look: Callable[[], Any], seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def lines(store: Client, query: str = '{job="file"}') -> list[str]:
    return [line for _, line in store.select(query, limit=5000, direction="forward")]


def test_a_line_of_a_file_reaches_the_store_with_its_labels(store: Client, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("hello\nworld\n")
    with shipping(tmp_path, store.url):
        until(lambda: lines(store) == ["hello", "world"])
    [stream] = store.get("query_range", query='{node="n1"}').json()["data"]["result"]
    assert stream["stream"]["filename"] == f"{tmp_path}/a.log"


def test_a_restart_sends_nothing_twice_and_misses_nothing(store: Client, tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    file.write_text("1\n")
    with shipping(tmp_path, store.url):
        until(lambda: lines(store) == ["1"])
    with file.open("a") as out:
        out.write("2\n")
    with shipping(tmp_path, store.url):
        until(lambda: lines(store) == ["1", "2"])
