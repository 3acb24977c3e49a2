"""The store on disk: durable, merged, bounded."""

import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

from lokilike import Client
from narthex_exporter.errors import ConfigError, UnavailableError
from narthex_logstore.app import Config, running
from narthex_logstore.engine import Engine
from narthex_logstore.logql.parser import parse
from narthex_logstore.logql.tree import LogQuery
from narthex_logstore.maintenance import Maintenance, Retention
from narthex_logstore.model import Entry, Limits, PushError, QueryError
from narthex_logstore.storage import Store, open_store

DAY = 24 * 3600 * 10**9
LABELS = (("job", "a"),)


def fill(store: Store, blocks: int, *, first: int = 10 * DAY, size: int = 10) -> list[Entry]:
    entries = [Entry(first + n, f"line {n}".encode() * 20) for n in range(blocks * size)]
    for number in range(blocks):
        store.append({LABELS: entries[number * size : (number + 1) * size]})
    return entries


def held(store: Store) -> list[Entry]:
    with store.snapshot() as view:
        blocks = [
            view.load(header)
            for stream in store.streams()
            for header in view.headers(stream.id, 0, 1 << 62)
        ]
    return sorted(block.entry(n) for block in blocks for n in range(len(block.times)))


def test_what_was_stored_is_there_after_reopening(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        entries = fill(store, 3)
    with open_store(tmp_path) as store:
        assert held(store) == entries
        # The newest time is known again too: a retry is recognised.
        assert store.append({LABELS: entries}).repeated == 30


def test_merging_keeps_every_entry_and_lessens_blocks(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        entries = fill(store, 40)
        random.Random(1).shuffle(shuffled := entries[:])  # noqa: S311
        assert store.append({LABELS: shuffled}).stored == 0
        Maintenance(store, Retention(age_ns=None)).run_once()
        assert held(store) == entries
        with store.snapshot() as view:
            assert view.totals()[0] == 1


def test_a_query_sees_one_moment_while_blocks_are_merged(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, 40)
        with store.snapshot() as view:
            [stream] = store.streams()
            headers = view.headers(stream.id, 0, 1 << 62)
            Maintenance(store, Retention(age_ns=None)).run_once()
            assert sum(len(view.load(header).times) for header in headers) == 400


def test_old_blocks_and_their_streams_are_dropped(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, 2, first=10 * DAY)
        store.append({(("job", "b"),): [Entry(20 * DAY, b"new")]})
        keeper = Maintenance(store, Retention(age_ns=5 * DAY), now_ns=lambda: 20 * DAY)
        keeper.run_once()
        assert [stream.labels for stream in store.streams()] == [(("job", "b"),)]
        assert [entry.line for entry in held(store)] == [b"new"]


def test_the_oldest_go_when_there_is_too_much(tmp_path: Path) -> None:
    noise = random.Random(1)  # noqa: S311
    with open_store(tmp_path) as store:
        for n in range(40):
            store.append(
                {(("n", str(n)),): [Entry(DAY + n, noise.randbytes(60_000).hex().encode())]}
            )
        before = store.size_bytes()
        limit = before // 2
        Maintenance(store, Retention(age_ns=None, size_bytes=limit)).run_once()
        assert store.size_bytes() <= limit
        times = [entry.ts for entry in held(store)]
        assert times == [DAY + n for n in range(40)][-len(times) :] or not times


def test_a_store_of_another_format_is_refused_in_words(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.writer.execute("PRAGMA user_version = 99")
    with pytest.raises(UnavailableError, match="another version"):
        open_store(tmp_path)
    (tmp_path / "logs.sqlite3").write_bytes(b"garbage" * 1000)
    with pytest.raises(UnavailableError, match="cannot open"):
        open_store(tmp_path)


def test_a_query_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    ticks = iter(range(10**6))
    with open_store(tmp_path) as store:
        fill(store, 40)
        engine = Engine(store, Limits(query_seconds=5), clock=lambda: float(next(ticks)))
        query = parse('{job="a"} |= "absent"')
        assert isinstance(query, LogQuery)
        with pytest.raises(QueryError, match="too long") as caught:
            engine.select(query, start_ns=0, end_ns=1 << 60, limit=10, direction="forward")
        assert caught.value.status == 504


def test_an_answer_is_bounded_in_bytes(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, 40)
        engine = Engine(store, Limits(answer_bytes=1000))
        query = parse('{job="a"}')
        assert isinstance(query, LogQuery)
        with pytest.raises(QueryError, match="larger than"):
            engine.select(query, start_ns=0, end_ns=1 << 60, limit=100, direction="forward")


def test_an_open_address_is_refused_unless_asked_for(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="anybody could read"),
        running(Config(address="0.0.0.0", port=0, path=tmp_path)),  # noqa: S104
    ):
        pass


def test_pushes_and_queries_go_on_beside_each_other_and_merging(client: Client, now: int) -> None:
    errors: list[object] = []

    def write(name: str) -> None:
        mine = Client(client.url)
        with mine.session:
            for n in range(25):
                values = [[str(now + n * 20 + k), f"{name} {n * 20 + k}"] for k in range(20)]
                if mine.lines({"job": "a", "w": name}, *values).status_code != 204:
                    errors.append(name)

    threads = [threading.Thread(target=write, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for writer in range(4):
            seen = client.select(f'{{w="{writer}"}}', limit=1000, direction="forward")
            assert len(seen) % 20 == 0
    for thread in threads:
        thread.join()
    assert not errors
    assert len(client.select('{job="a"}', limit=5000)) == 2000


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for turn in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        program = subprocess.Popen(
            [sys.executable, "-m", "narthex_exporter", "logstore", "--web.listen-address",
             f"127.0.0.1:{port}", "--storage.path", str(tmp_path)],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        client = Client(f"http://127.0.0.1:{port}")
        with client.session:
            _wait(client)
            for n in range(60):
                line = f"{turn} {n}"
                if client.lines({"job": "a"}, [str(time.time_ns()), line]).status_code == 204:
                    acknowledged.append(line)
            program.send_signal(signal.SIGKILL)
            program.wait()
    with open_store(tmp_path) as store:
        assert [entry.line.decode() for entry in held(store)] == acknowledged


def _wait(client: Client) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            client.session.get(f"{client.url}/ready", timeout=2)
        except requests.ConnectionError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the store did not start")


def test_one_stream_too_many_is_refused_for_now(tmp_path: Path) -> None:
    with open_store(tmp_path, max_streams=2) as store:
        store.append({(("n", str(n)),): [Entry(DAY, b"x")] for n in range(2)})
        with pytest.raises(PushError, match="stream limit") as caught:
            store.append({(("n", "3"),): [Entry(DAY, b"x")], LABELS: [Entry(DAY, b"x")]})
        assert caught.value.status == 429
        assert len(held(store)) == 2


def test_a_damaged_block_is_told_in_words(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, 1)
        store.writer.execute("UPDATE blocks SET idx = x'00'")
        with pytest.raises(UnavailableError, match="cannot read"):
            held(store)
