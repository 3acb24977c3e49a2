"""LogQL: what each construct selects and computes."""

import random
from pathlib import Path
from typing import Any

import pytest

from lokilike import Client
from narthex_logstore.engine import Engine
from narthex_logstore.logql.parser import parse
from narthex_logstore.logql.tree import LogQuery
from narthex_logstore.model import SECOND, Entry, Limits
from narthex_logstore.storage import open_store
from narthex_logstore.windows import Window

MINUTE = 60 * 10**9
LINES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("web", "GET /a 200 dur=5ms size=10KB", {"pid": "1"}),
    ("web", "GET /b 500 dur=1.5s size=5MiB level=error", {"pid": "2"}),
    ("web", "ünïcode [x] (y) 100%", {}),
    ("db", '{"level":"warn","took":250,"who":{"name":"root"},"ok":true,"n":null}', {}),
    ("db", '{"level":"info","took":12.5,"who":{"name":"bob"},"job":"own"}', {}),
    ("db", "not json", {}),
    ("empty", "", {}),
)

GETS = 'sum by (job) (count_over_time({job=~".+"} |= "GET" [5m]))'
ALL = 'sum by (job) (count_over_time({job=~".+"}[5m]))'


@pytest.fixture
def logs(client: Client, now: int) -> Client:
    for number, (job, line, meta) in enumerate(LINES):
        labels = {"job": job, "node": "n1" if job != "db" else "n2"}
        assert client.lines(labels, [str(now - MINUTE + number), line, meta]).status_code == 204
    return client


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('{job="web"}', [0, 1, 2]),
        ('{job!="web", node=~".+"}', [3, 4, 5, 6]),
        ('{job=~"web|d."}', [0, 1, 2, 3, 4, 5]),
        ('{job=~"we"}', []),
        ('{job!~"w.*|db", node="n1"}', [6]),
        ('{job="web", missing=""}', [0, 1, 2]),
        ('{node="n1"} |= "GET"', [0, 1]),
        ('{node="n1"} |= "GET" != "500"', [0]),
        ('{node="n1"} |= "500" or "x]"', [1, 2]),
        ('{node=~"n.*"} |~ "(?i)get /[ab]"', [0, 1]),
        ('{node=~"n.*"} !~ "GET|json|level"', [2, 6]),
        ('{job="web"} |= `[x] (y)`', [2]),
        ('{job="web"} |= "\\u00fcn\\xefcode"', [2]),
        ('{job="web"} |~ "^ü.ïcode"', [2]),
        ('{job="web"} |= ""', [0, 1, 2]),
        ('{job="empty"} |= ""', [6]),
        ('{job="db"} | json | level="warn"', [3]),
        ('{job="db"} | json | who_name=~"r.*t"', [3]),
        ('{job="db"} | json | took > 12 and took < 13', [4]),
        ('{job="db"} | json | took >= 250 or who_name="bob"', [3, 4]),
        ('{job="db"} | json | ok="true", took == 250', [3]),
        ('{job="db"} | json | (took > 100 or level="info") and who_name!="root"', [4]),
        ('{job="db"} | json | __error__=""', [3, 4]),
        ('{job="db"} | json | __error__!=""', [5]),
        ('{job="db"} | json | job_extracted="own"', [4]),
        ('{job="web"} | logfmt | dur > 1s', [1]),
        ('{job="web"} | logfmt | dur <= 5ms', [0]),
        ('{job="web"} | logfmt | size > 1MB', [1]),
        ('{job="web"} | logfmt | size = 10KB', [0]),
        ('{job="web"} | logfmt | level="error"', [1]),
        ('{job="web"} | pid="2"', [1]),
        ('{job="web"} | pid=""', [2]),
        ('{job="web"} | pid > 1 # only the second', [1]),
        ('{job="web"} | detected_level="error"', [1]),
        ('{job="web"} | json | line_format "x" |= "x" | pid="1"', [0]),
    ],
)
def test_a_query_selects_these_lines(logs: Client, query: str, expected: list[int]) -> None:
    found = logs.get("query_range", query=query).json()["data"]["result"]
    times = sorted(int(value[0]) % 60 for stream in found for value in stream["values"])
    assert [ts % 10 for ts in times] == expected


def test_line_format_rewrites_lines(logs: Client) -> None:
    query = '{job="db"} | json | took > 100 | line_format "{{.who_name}}: {{ .took }} {{.no}}."'
    assert [line for _, line in logs.select(query)] == ["root: 250 ."]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("1 + 2 * 3", 7.0),
        ("-(4 - 2) / 4", -0.5),
        ("1 < bool 2", 1.0),
        ("1 / 0", "NaN"),
    ],
)
def test_numbers_are_computed(client: Client, query: str, expected: float | str) -> None:
    data = client.get("query", query=query).json()["data"]
    assert data["resultType"] == "scalar"
    assert data["result"][1] == (expected if isinstance(expected, str) else f"{expected:g}")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('sum(count_over_time({job=~".+"}[5m]))', {"": "7"}),
        ('sum by (job) (count_over_time({job=~".+"}[5m]))', {"web": "3", "db": "3", "empty": "1"}),
        ('sum without (job, pid, detected_level) (count_over_time({job="web"}[5m]))', {"n1": "3"}),
        ('sum by (job) (count_over_time({job=~".+"} |= "GET" [5m]))', {"web": "2"}),
        ('sum by (level) (count_over_time({job="db"} | json | __error__="" [5m]))',
         {"warn": "1", "info": "1"}),
        ('sum(rate({job="web"}[5m]))', {"": "0.01"}),
        ('sum(bytes_over_time({job="empty"}[5m]))', {"": "0"}),
        ('sum(bytes_over_time({job="web"}[5m] |= "/a"))', {"": "28"}),
        ('max(sum by (job) (count_over_time({job=~".+"}[5m])))', {"": "3"}),
        ('min(sum by (job) (count_over_time({job=~".+"}[5m])))', {"": "1"}),
        ('avg(sum by (job) (count_over_time({job=~"web|empty"}[5m])))', {"": "2"}),
        ('count(sum by (job) (count_over_time({job=~".+"}[5m])))', {"": "3"}),
        ('sum by (job) (count_over_time({job=~".+"}[5m])) > 1', {"web": "3", "db": "3"}),
        ('1 < sum by (job) (count_over_time({job=~".+"}[5m]))', {"web": "3", "db": "3"}),
        ('sum by (job) (count_over_time({job="web"}[5m])) > bool 5', {"web": "0"}),
        ('sum by (job) (count_over_time({job="web"}[5m])) * 2 + 1', {"web": "7"}),
        (f"{GETS} / {ALL} * 3", {"web": "2"}),
        ('sum(count_over_time({job="web"}[1s]))', {}),
        ('sum(count_over_time({job="nothing"}[5m]))', {}),
    ],
)  # fmt: skip
def test_a_metric_query_computes_these_values(
    logs: Client, now: int, query: str, expected: dict[str, str]
) -> None:
    result = logs.get("query", query=query, time=now).json()["data"]["result"]
    assert {"".join(each["metric"].values()): each["value"][1] for each in result} == expected


def test_windows_include_their_end_and_not_their_start(client: Client, now: int) -> None:
    client.lines({"job": "a"}, *([str(now - MINUTE + n * 10**9), str(n)] for n in range(60)))
    reply = client.get(
        "query_range",
        query='sum(count_over_time({job="a"}[10s]))',
        start=now - MINUTE, end=now, step="10s",
    )  # fmt: skip
    [series] = reply.json()["data"]["result"]
    assert [value for _, value in series["values"]] == ["1", "10", "10", "10", "10", "10", "9"]
    overlapping = client.get(
        "query_range",
        query='sum(count_over_time({job="a"}[20s]))',
        start=now - MINUTE, end=now, step="10s",
    ).json()["data"]["result"]  # fmt: skip
    assert [value for _, value in overlapping[0]["values"]] == [
        "1", "11", "20", "20", "20", "20", "19",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ('{job="a"} | pattern "<x>"', "parse error at line 1, col 21"),
        ('topk(3, rate({job="a"}[5m]))', "col 1: syntax error: unexpected 'topk'"),
        ('rate({job="a"})', "syntax error"),
        ('{job="a"} | json |', "unexpected $end"),
        ('{job="a"}\n|= error', "parse error at line 2, col 4"),
        ('{job="a"} | took > "5"', "syntax error"),
        ('{job="a"} | line_format "{{ToUpper .x}}"', "line_format"),
        ('{job="a"} |= "\\q"', "invalid char escape"),
        ('{job="a"} |~ "(?=x)"', "error parsing regexp"),
        ('{job=~".*"}', "at least one regexp or equality matcher"),
        ("sum(1)", "needs series"),
        ("1 > 2", "BOOL"),
        ('rate({job="a"}[0s])', "range"),
        ("(" * 3000 + "1" + ")" * 2000, "parse error"),
        ('{job="a"} | ' + "(" * 60 + "a=1" + ")" * 60, None),
        ("-" * 200 + "1", "nested too deeply"),
        ("1" + "+1" * 200, "nested too deeply"),
    ],
)
def test_what_is_not_understood_is_refused(client: Client, query: str, told: str | None) -> None:
    reply = client.get("query", query=query)
    assert reply.status_code == 400
    assert told is None or told in reply.text


def test_a_metric_over_lines_that_do_not_parse_says_so(logs: Client) -> None:
    reply = logs.get("query", query='sum by (who_name) (count_over_time({job="db"}|json[5m]))')
    assert reply.status_code == 400
    assert "JSONParserErr" in reply.text


def test_too_many_series_are_refused(client: Client, now: int) -> None:
    values: list[list[Any]] = [[str(now - n), "x", {"id": str(n)}] for n in range(501)]
    client.lines({"job": "a"}, *values)
    reply = client.get("query", query='count_over_time({job="a"}[5m])')
    assert reply.status_code == 400
    assert "maximum of series (500)" in reply.text


@pytest.mark.parametrize("step", [1, 7, 10, 60])
@pytest.mark.parametrize("window", [1, 5, 10, 35])
@pytest.mark.parametrize("function", ["count_over_time", "bytes_over_time"])
def test_counting_by_blocks_equals_counting_by_lines(
    tmp_path: Path, step: int, window: int, function: str
) -> None:
    chance = random.Random(step * 100 + window)  # noqa: S311
    times = sorted(chance.randrange(1000, 1200) for _ in range(300))
    entries = [Entry(ts * SECOND, b"x" * (n % 7), (("n", str(n)),)) for n, ts in enumerate(times)]
    with open_store(tmp_path) as store:
        for start in range(0, 300, 60):
            store.append({(("job", "a"),): entries[start : start + 60]})
        expr = parse(f'sum by (job) ({function}({{job="a"}}[{window}s]))')
        assert not isinstance(expr, LogQuery)
        moments = Window(start_ns=1010 * SECOND, end_ns=1190 * SECOND, step_ns=step * SECOND)
        result, _ = Engine(store, Limits()).measure(expr, moments)
    wanted = []
    for at in range(moments.steps):
        end = 1010 + at * step
        inside = [e for e in entries if end - window < e.ts // SECOND <= end]
        size = len(inside) if function == "count_over_time" else sum(len(e.line) for e in inside)
        wanted.append(float(size) if inside else None)
    assert result == {(("job", "a"),): wanted}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("b", {"abc", "b\nb", "xb"}),
        ("^b", {"b\nb"}),
        ("b$", {"xb", "b\nb"}),
        ("c.?x", set()),
        (r"c[^q]x", set()),
        (r"b\sb", {"b\nb"}),
        (r"\bx", {"xb"}),
        ("", {"abc", "b\nb", "xb", ""}),
        ("(?s)c.*x", set()),
        (r"x*", {"abc", "b\nb", "xb", ""}),
    ],
)
@pytest.mark.parametrize("more", [[], ["b\nb"]])
def test_a_pattern_never_matches_over_two_lines(
    client: Client, now: int, pattern: str, expected: set[str], more: list[str]
) -> None:
    entries = ["abc", "xb", "", *more]
    client.lines({"job": "a"}, *([str(now + n), line] for n, line in enumerate(entries)))
    found = {line for _, line in client.select(f'{{job="a"}} |~ `{pattern}`')}
    assert found == expected & set(entries)
