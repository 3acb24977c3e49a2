"""What the pusher does about entries that the store refuses."""

import threading
import time
from pathlib import Path

import pytest

from lokilike import Client
from narthex_exporter.logs.push import Answer, Connection, Pusher, encode, repaired, why
from narthex_exporter.logs.record import Counters, Record, Row
from narthex_exporter.logs.spool import Spool
from shipping import Proxy, proxied

SECOND = 10**9
LABELS = (("job", "file"), ("node", "n1"))


def row(**changes: object) -> Row:
    given = {"seq": 1, "labels": LABELS, "ts_ns": 5, "line": "x", "meta": (), "size": 1}
    return Row(**(given | changes))  # type: ignore[arg-type]


def push_all(spool: Spool, url: str, counters: Counters) -> None:
    connection = Connection(url)
    pusher = Pusher(spool, connection, counters, threading.Event(), jitter=lambda: 0.0)
    while pusher.run_once():
        pass
    connection.close()
    spool.close()


@pytest.mark.parametrize(
    ("record", "reason", "found"),
    [
        (Record(LABELS, "y" * 300_000), "too-long", ("y" * 131072, "truncated")),
        (Record((*LABELS, ("bad name", "v")), "z"), "", ()),
    ],
)
def test_one_bad_entry_of_a_thousand_is_repaired_or_buried(
    store: Client, tmp_path: Path, record: Record, reason: str, found: tuple[str, str]
) -> None:
    counters = Counters()
    spool = Spool(tmp_path / "s", counters)
    good = [Record(LABELS, f"{n}") for n in range(999)]
    spool.put([*good[:500], record, *good[500:]], {})
    push_all(spool, store.url, counters)
    lines = [line for _, line in store.select('{job="file"}', limit=5000, direction="forward")]
    assert [line for line in lines if len(line) < 4] == [f"{n}" for n in range(999)]
    assert spool.entries == 0
    if reason:
        assert counters.repaired == {reason: 1}
        assert [line for _, line in store.select(f'{{job="file"}} | {found[1]}="1"')] == [found[0]]
    else:
        assert counters.dead_letters == {"bad-label": 1}
        assert spool.dead_letters() == [("bad-label", "z")]
        spool.close()


def test_an_entry_that_came_too_late_goes_to_a_stream_of_its_own(
    store: Client, tmp_path: Path
) -> None:
    now = time.time_ns()
    store.lines(dict(LABELS), [str(now), "newest"])
    counters = Counters()
    spool = Spool(tmp_path / "s", counters)
    spool.put([Record(LABELS, "late", now - 3 * 3600 * SECOND)], {})
    push_all(spool, store.url, counters)
    assert store.select('{job="file", late="1"}', start=now - 4 * 3600 * SECOND) == [
        (now - 3 * 3600 * SECOND, "late")
    ]


def test_an_entry_that_is_too_old_is_sent_as_of_now_and_says_so(
    store: Client, tmp_path: Path
) -> None:
    week_ago = time.time_ns() - 8 * 24 * 3600 * SECOND
    counters = Counters()
    # Read when the clock was right, pushed a week later.
    Spool(tmp_path / "s", counters, now_ns=lambda: week_ago).put([Record(LABELS, "old")], {})
    spool = Spool(tmp_path / "s", counters)
    push_all(spool, store.url, counters)
    [(_, line)] = store.select(f'{{job="file"}} | orig_ts="{week_ago}"')
    assert line == "old"
    assert counters.repaired == {"too-old": 1}


def test_a_push_that_is_too_large_is_split(store: Client, tmp_path: Path) -> None:
    counters = Counters()
    spool = Spool(tmp_path / "s", counters)
    spool.put([Record(LABELS, f"{n}") for n in range(8)], {})
    proxy = Proxy(store.url)
    proxy.limit_bytes = 110
    with proxied(proxy) as url:
        push_all(spool, url, counters)
    assert len(store.select('{job="file"}')) == 8
    assert not counters.dead_letters


def test_a_refusal_without_a_reason_is_tried_again_before_it_costs_an_entry(
    store: Client, tmp_path: Path
) -> None:
    counters = Counters()
    spool = Spool(tmp_path / "s", counters)
    spool.put([Record(LABELS, "x")], {})
    proxy = Proxy(store.url, away=True, status=400)
    with proxied(proxy) as url:
        push_all(spool, url, counters)
    assert proxy.requests == 6
    assert counters.dead_letters == {"unexplained": 1}
    assert spool.dead_letters() == [("unexplained", "x")]
    spool.close()


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("Max entry size '262144' bytes exceeded for stream", 400, "too-long"),
        ("entry for stream '{}' has timestamp too old: 2020", 400, "too-old"),
        ("entry for stream '{}' has timestamp too new: 2099", 400, "too-new"),
        ("entry too far behind, entry timestamp is", 400, "too-late"),
        ("has 16 label names; limit 15", 400, "bad-label"),
        ("", 413, "too-long"),
        ("<html>400", 400, "unexplained"),
    ],
)
def test_reasons_are_told_apart(text: str, status: int, reason: str) -> None:
    assert why(Answer(status=status, text=text)) == reason


@pytest.mark.parametrize("reason", ["too-long", "too-late", "too-old", "too-new"])
def test_an_entry_is_repaired_once(reason: str) -> None:
    once = repaired(row(), reason)
    assert once is not None
    assert repaired(once, reason) is None


def test_the_same_rows_make_the_same_request() -> None:
    rows = [row(seq=n, ts_ns=n, meta=(("pid", "1"),)) for n in range(5)]
    assert encode(rows) == encode(list(rows))
