"""Measure the log store: ingest, search and histogram; and full-text tables beside it.

python bench/logstore.py --lines 1000000
"""

import argparse
import gzip
import json
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import requests

from narthex_logstore.app import Config, running

DAY = 24 * 3600 * 10**9
STREAMS = 20
BATCH = 5000
WORDS = (  # noqa: SIM905 - a list of words is read more easily
    "accepted rejected connection from port user session opened closed for request handled in ms "
    "GET POST /api/v1/items /login status 200 404 500 upstream timeout retry cache hit miss"
).split()


def lines(count: int, first_ns: int) -> Iterator[tuple[int, int, str]]:
    """Give stream, time and line; one line in 100,000 holds the needle."""
    chance = random.Random(1)  # noqa: S311
    step = DAY // count
    for n in range(count):
        words = " ".join(chance.choices(WORDS, k=12))
        needle = f" needle-{n}" if n % 100_000 == 50_000 else ""
        stream = n // 50 % STREAMS
        yield stream, first_ns + n * step, f"{words} id={chance.getrandbits(48):012x}{needle}"


def bodies(count: int, first_ns: int) -> Iterator[bytes]:
    """Give pushes of 5,000 lines."""
    streams: dict[int, list[list[str]]] = {}
    for number, (stream, ts, line) in enumerate(lines(count, first_ns), 1):
        streams.setdefault(stream, []).append([str(ts), line])
        if number % BATCH == 0 or number == count:
            data = {
                "streams": [
                    {"stream": {"job": "bench", "unit": f"u{key}"}, "values": values}
                    for key, values in streams.items()
                ]
            }
            yield gzip.compress(json.dumps(data).encode(), 1)
            streams = {}


def timed(name: str, work: Callable[[], object], *, times: int = 3) -> None:
    """Print the best of some runs."""
    best = None
    result: object = None
    for _ in range(times):
        began = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - began
        best = seconds if best is None else min(best, seconds)
    print(f"  {name:<44} {best or 0:8.3f} s   {result}")


def measure_store(folder: Path, count: int) -> None:
    """Push and ask over HTTP, as the shipper and the panel do."""
    first = time.time_ns() - DAY
    with running(Config(port=0, path=folder)) as store, requests.Session() as session:
        session.trust_env = False
        api = f"http://127.0.0.1:{store.port}/loki/api/v1"
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        pushing = 0.0
        for body in bodies(count, first):
            began = time.perf_counter()
            session.post(f"{api}/push", data=body, headers=headers, timeout=60).raise_for_status()
            pushing += time.perf_counter() - began
        print(f"blocks: {count / pushing:,.0f} lines/s ingested")
        began = time.perf_counter()
        store.maintenance.run_once()
        print(f"  merged in {time.perf_counter() - began:.1f} s")
        print(f"  {store.store.size_bytes() / count:.1f} bytes a line on disk")

        def ask(query: str, **more: str) -> int:
            params = {
                "query": query, "start": str(first), "end": str(first + DAY + 1), "limit": "1000",
                **more,
            }  # fmt: skip
            reply = session.get(f"{api}/query_range", params=params, timeout=120)
            reply.raise_for_status()
            result = reply.json()["data"]["result"]
            return sum(len(each["values"]) for each in result)

        everything = '{job="bench"}'
        timed("last 1,000 lines", lambda: ask(everything))
        timed("selective text over a day", lambda: ask(f'{everything} |= "needle-"'))
        timed("absent text over a day", lambda: ask(f'{everything} |= "no such text"'))
        timed("selective text in one stream", lambda: ask('{unit="u3"} |= "needle-"'))
        timed(
            "regular expression over a day",
            lambda: ask(f'{everything} |~ "needle-\\\\d+5"'),
            times=1,
        )
        timed(
            "histogram over a day",
            lambda: ask(f"sum(count_over_time({everything}[10m]))", step="10m"),
        )
        timed(
            "histogram of a filter over a day",
            lambda: ask(f'sum(count_over_time({everything} |= "needle-"[10m]))', step="10m"),
        )
        by_level = f"sum by (detected_level) (count_over_time({everything}[10m]))"
        timed("histogram by level over a day", lambda: ask(by_level, step="10m"), times=1)


def measure_full_text(file: Path, count: int, tokenizer: str) -> None:
    """The alternative: a row a line, found by an FTS5 index."""
    first = time.time_ns() - DAY
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE l (id INTEGER PRIMARY KEY, stream INTEGER, ts INTEGER, line TEXT)")
    db.execute(
        "CREATE VIRTUAL TABLE f USING fts5"
        f"(line, content='l', content_rowid='id', detail=none, tokenize='{tokenizer}')"
    )
    began = time.perf_counter()
    batch: list[tuple[int, int, int, str]] = []
    for number, (stream, ts, line) in enumerate(lines(count, first), 1):
        batch.append((number, stream, ts, line))
        if number % BATCH == 0 or number == count:
            db.execute("BEGIN")
            db.executemany("INSERT INTO l VALUES (?, ?, ?, ?)", batch)
            db.executemany(
                "INSERT INTO f (rowid, line) VALUES (?, ?)", [(r[0], r[3]) for r in batch]
            )
            db.execute("COMMIT")
            batch = []
    print(f"FTS5 {tokenizer}: {count / (time.perf_counter() - began):,.0f} lines/s ingested")
    size = db.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
    print(f"  {size.fetchone()[0] / count:.1f} bytes a line on disk")
    word = "needle" if tokenizer != "trigram" else '"needle-"'
    sql = "SELECT count(*) FROM l JOIN f ON f.rowid = l.id WHERE f MATCH ?"
    if tokenizer == "trigram":
        sql, word = "SELECT count(*) FROM f WHERE line LIKE ?", "%needle-%"
    timed("selective text over a day", lambda: db.execute(sql, (word,)).fetchone()[0])
    histogram = f"SELECT count(*) FROM (SELECT ts / {600 * 10**9} AS t FROM l GROUP BY t)"  # noqa: S608
    timed("histogram over a day", lambda: db.execute(histogram).fetchone()[0])
    db.close()


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--full-text-lines", type=int, default=300_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="narthex-bench-"))
    try:
        measure_store(folder / "store", options.lines)
        for tokenizer in ("unicode61", "trigram"):
            measure_full_text(folder / f"{tokenizer}.db", options.full_text_lines, tokenizer)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
