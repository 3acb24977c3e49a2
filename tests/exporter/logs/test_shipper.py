"""The shipper against the real store, through networks that fail."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from lokilike import Client
from narthex_exporter.errors import ConfigError
from narthex_exporter.logs.config import LogsConfig
from narthex_exporter.logs.shipper import Shipper
from narthex_exporter.transport.identity import Role
from narthex_exporter.transport.server import Listener, Server, listen_tcp
from narthex_exporter.transport.tls import ReloadingContext
from narthex_operator.gateway import build_gateway
from shipping import Proxy, metrics, proxied, shipping, until

PROGRAM = """
import sys, threading
from pathlib import Path
from narthex_exporter.logs.config import LogsConfig
from narthex_exporter.logs.shipper import Shipper

folder, url = sys.argv[1:]
Shipper(
    config=LogsConfig(journal=False, files=(folder + "/*.log",)),
    spool=Path(folder) / "spool.sqlite3",
    push_url=url,
    labels={"node": "n1"},
    poll_seconds=0.02,
).start()
threading.Event().wait()
"""


def lines(store: Client, query: str = '{job="file"}') -> list[str]:
    """Give every line, page by page: within a stream no two have one time."""
    found: list[str] = []
    start = 0
    # Entries that differ in metadata are told as streams of their own: in order only together.
    while page := sorted(store.select(query, limit=5000, direction="forward", start=start)):
        found += [line for _, line in page]
        start = page[-1][0] + 1
    return found


def test_a_line_of_a_file_reaches_the_store_with_its_labels(store: Client, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("hello\nworld\n")
    with shipping(tmp_path, store.url) as shipper:
        until(lambda: lines(store) == ["hello", "world"])
        until(lambda: metrics(shipper)["queue_entries"] == 0)
        assert metrics(shipper)["sent_entries"] == 2
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


def test_a_file_whose_name_is_no_text_is_shipped(store: Client, tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff\n.log", "w") as out:  # noqa: PTH123
        out.write("1\n")
    with shipping(tmp_path, store.url):
        until(lambda: lines(store) == ["1"])


def test_a_mistake_of_ours_pauses_a_part_and_is_counted(
    store: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.log").write_text("1\n")
    with monkeypatch.context() as patched:
        patched.setattr("narthex_exporter.logs.files.pieces", None)
        with shipping(tmp_path, store.url) as shipper:
            until(lambda: metrics(shipper)["part_failures"] >= 1)
            patched.undo()
            until(lambda: lines(store) == ["1"])


def test_logs_go_by_tls_under_the_nodes_own_certificate(
    store: Client, tmp_path: Path, authority: Any
) -> None:
    (tmp_path / "a.log").write_text("secretly\n")
    proxy = Proxy(store.url)
    gateway = ReloadingContext(authority.issue(Role.SERVER, "gateway"))
    with (
        proxied(proxy, gateway) as url,
        shipping(tmp_path, url, tls=authority.issue(Role.NODE, "n1")),
    ):
        until(lambda: lines(store) == ["secretly"])
    assert proxy.peers == {"spiffe://0123456789abcdef.narthex.internal/node/n1"}


def test_the_operators_gateway_takes_what_the_shipper_sends(
    store: Client, tmp_path: Path, authority: Any
) -> None:
    (tmp_path / "a.log").write_text("\x1b[31mred\x1b[0m\n\\x\n" + "y" * 300_000 + "\n")
    gateway = build_gateway(
        name_of=lambda peer: f"named-{peer.id}",
        logs_url=store.url,
        ticket_keys=dict,
        registry=CollectorRegistry(),
    )
    tls = ReloadingContext(authority.issue(Role.SERVER, "gateway"))
    sock = listen_tcp("127.0.0.1", 0)
    url = f"https://127.0.0.1:{sock.getsockname()[1]}"
    with (
        Server(gateway, [Listener(sock=sock, tls=tls)]),
        shipping(tmp_path, url, tls=authority.issue(Role.NODE, "n1")) as shipper,
    ):
        until(lambda: len(lines(store, '{node="named-n1"}')) == 4)
        assert metrics(shipper)["push_failures"] == 0
    gateway._session.close()  # type: ignore[attr-defined]
    assert lines(store)[:2] == ["\x1b[31mred\x1b[0m", "\\x"]


def test_nothing_is_sent_to_a_gateway_of_another_authority(
    store: Client, tmp_path: Path, authority: Any
) -> None:
    (tmp_path / "a.log").write_text("secretly\n")
    mine = authority.issue(Role.NODE, "n1")
    other = type(authority)(tmp_path / "other")
    proxy = Proxy(store.url)
    gateway = ReloadingContext(other.issue(Role.SERVER, "gateway"))
    with proxied(proxy, gateway) as url, shipping(tmp_path, url, tls=mine) as shipper:
        until(lambda: metrics(shipper)["push_failures"] >= 1)
    assert not proxy.requests


@pytest.mark.parametrize("url", ["ftp://x", "nonsense", "https://127.0.0.1:1", "http://a:b@c/"])
def test_an_address_that_cannot_be_pushed_to_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError):
        Shipper(config=LogsConfig(), spool=tmp_path / "s", push_url=url)


@pytest.mark.parametrize("status", [503, 500, 429, 401, 404])
def test_a_store_that_is_away_gets_everything_when_it_is_back(
    store: Client, tmp_path: Path, status: int
) -> None:
    proxy = Proxy(store.url, away=True, status=status)
    wanted = [f"line {n}" for n in range(500)]
    (tmp_path / "a.log").write_text("\n".join(wanted) + "\n")
    with proxied(proxy) as url, shipping(tmp_path, url) as shipper:
        until(lambda: metrics(shipper)["push_failures"] >= 1)
        assert metrics(shipper)["queue_entries"] == 500
        assert metrics(shipper)["oldest_entry_timestamp_seconds"] > 0
        proxy.away = False
        until(lambda: lines(store) == wanted)
        until(lambda: metrics(shipper)["queue_entries"] == 0)
        assert metrics(shipper)["dead_letter_entries"] == 0


def test_retry_after_is_honoured(store: Client, tmp_path: Path) -> None:
    proxy = Proxy(store.url, away=True, status=429, headers=[("Retry-After", "2")])
    (tmp_path / "a.log").write_text("x\n")
    with proxied(proxy) as url, shipping(tmp_path, url):
        until(lambda: proxy.requests)
        proxy.away = False
        began = time.monotonic()
        until(lambda: lines(store) == ["x"])
        assert time.monotonic() - began > 1.5
    assert proxy.requests == 2


def crash(store: Client, folder: Path, *, count: int, kills: int) -> None:
    wanted = [f"{n} {'x' * 60}" for n in range(count)]
    chance = random.Random(3)  # noqa: S311
    proxy = Proxy(store.url, refuse=0.1, lose=0.05)
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    with proxied(proxy) as url, (folder / "a.log").open("a", buffering=1 << 20) as out:
        program = subprocess.Popen([*command, url])
        try:
            for turn in range(kills):
                part = wanted[turn * count // kills : (turn + 1) * count // kills]
                out.write("".join(f"{line}\n" for line in part))
                out.flush()
                # Imports take half a second; after that any moment is good.
                time.sleep(0.5 + chance.random() * 0.5)
                os.kill(program.pid, signal.SIGKILL)
                program.wait()
                program = subprocess.Popen([*command, url])
            until(lambda: len(lines(store)) >= count, seconds=60)
        finally:
            program.kill()
            program.wait()
    # Every line once: what was sent twice was identical, so the store dropped it.
    assert Counter(lines(store)) == Counter(wanted)


def test_kill_9_and_a_bad_network_lose_nothing(store: Client, tmp_path: Path) -> None:
    crash(store, tmp_path, count=6000, kills=4)


@pytest.mark.slow
def test_twenty_kills_lose_nothing_of_50000_lines(store: Client, tmp_path: Path) -> None:
    crash(store, tmp_path, count=50_000, kills=20)
