"""The HTTP API as clients of Loki use it."""

import gzip
import json
from typing import Any

import cramjam
import pytest

from lokilike import Client

SECOND = 10**9


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def push_request(labels: str, entries: list[tuple[int, bytes, dict[str, str]]]) -> bytes:
    """Write a PushRequest, as Loki's clients do."""
    stream = field(1, labels.encode())
    for ts, line, meta in entries:
        seconds, nanos = divmod(ts, SECOND)
        stamp = b"\x08" + varint(seconds) + b"\x10" + varint(nanos)
        entry = field(1, stamp) + field(2, line)
        for name, value in meta.items():
            entry += field(3, field(1, name.encode()) + field(2, value.encode()))
        stream += field(2, entry)
    return bytes(cramjam.snappy.compress_raw(field(1, stream)))


def post(client: Client, body: bytes, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.session.post(
        f"{client.url}/loki/api/v1/push", data=body, headers=named, timeout=10
    )


def test_a_pushed_line_is_found_by_its_labels(client: Client, now: int) -> None:
    reply = client.lines({"job": "a"}, [str(now), "hello"])
    assert (reply.status_code, reply.content) == (204, b"")
    assert client.select('{job="a"}') == [(now, "hello")]
    assert client.select('{job="b"}') == []


def test_a_push_in_protobuf_and_snappy_is_read(client: Client, now: int) -> None:
    body = push_request('{job="p", x="y\\"z"}', [(now + 7, "grüße\n2".encode(), {"pid": "12"})])
    assert post(client, body, Content_Type="application/x-protobuf").status_code == 204
    [stream] = client.get("query_range", query='{job="p"}').json()["data"]["result"]
    assert stream["values"] == [[str(now + 7), "grüße\n2"]]
    assert stream["stream"] == {
        "job": "p", "x": 'y"z', "pid": "12", "detected_level": "unknown",
    }  # fmt: skip


def test_a_push_in_gzip_is_read(client: Client, now: int) -> None:
    data = {"streams": [{"stream": {"job": "z"}, "values": [[str(now), "l"]]}]}
    body = gzip.compress(json.dumps(data).encode())
    reply = post(client, body, Content_Type="application/json", Content_Encoding="gzip")
    assert reply.status_code == 204
    assert client.select('{job="z"}') == [(now, "l")]


JSON = {"Content_Type": "application/json"}
GZIP = {**JSON, "Content_Encoding": "gzip"}
PROTOBUF = {"Content_Type": "application/x-protobuf"}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", JSON, 400),
        (b"[]", JSON, 400),
        (b"7", JSON, 400),
        (b"\xff", JSON, 400),
        (b'{"streams":[{"stream":{"a":1},"values":[]}]}', JSON, 400),
        (b'{"streams":[{"stream":{},"values":[["1"]]}]}', JSON, 400),
        (b'{"streams":[{"stream":{},"values":7}]}', JSON, 400),
        (b'{"streams":[7]}', JSON, 400),
        (b"[" * 200_000, JSON, 400),
        (b"x", GZIP, 400),
        (gzip.compress(b"{}", mtime=0)[:-9], GZIP, 400),
        (gzip.compress(bytes(40 << 20), mtime=0), GZIP, 413),
        (b"x", {**JSON, "Content_Encoding": "br"}, 415),
        (b"x", {"Content_Type": "text/plain"}, 415),
        (b"\xff\xff\xff\xff\xff", PROTOBUF, 400),
        (b"\xff\xff\xff\x7f", PROTOBUF, 413),
        (bytes(cramjam.snappy.compress_raw(b"\x0a\xff")), PROTOBUF, 400),
        (push_request('{a=~"b"}', []), PROTOBUF, 400),
        (push_request("nonsense", []), PROTOBUF, 400),
    ],
    ids=range(19),
)
def test_a_malformed_push_is_refused_in_words(
    client: Client, body: bytes, headers: dict[str, str], status: int
) -> None:
    reply = post(client, body, **headers)
    assert reply.status_code == status, reply.text
    assert reply.text.strip()


@pytest.mark.parametrize(
    ("labels", "value", "told"),
    [
        ({"job": "a"}, ["-8d", "l"], "timestamp too old"),
        ({"job": "a"}, ["+11m", "l"], "timestamp too new"),
        ({"job": "a"}, ["0", "x" * (256 * 1024 + 1)], "Max entry size"),
        ({f"l{n}": "v" for n in range(16)}, ["0", "l"], "label names"),
        ({}, ["0", "l"], "at least one label"),
        ({"a b": "c"}, ["0", "l"], "not valid"),
        ({"job": "x" * 3000}, ["0", "l"], "label value too long"),
        ({"job": "a"}, ["0", "l", {"m": "x" * 70_000}], "structured metadata"),
    ],
)
def test_a_bad_entry_is_refused_and_its_neighbours_are_kept(
    client: Client, now: int, labels: dict[str, str], value: list[Any], told: str
) -> None:
    offsets = {"-8d": -8 * 86400, "+11m": 660, "0": 0}
    bad = [str(now + offsets[value[0]] * SECOND), *value[1:]]
    reply = client.push(
        [
            {"stream": {"job": "good"}, "values": [[str(now), "kept"]]},
            {"stream": labels, "values": [bad]},
        ]
    )
    assert reply.status_code == 400
    assert told in reply.text
    assert client.select('{job="good"}') == [(now, "kept")]


def test_an_entry_far_behind_its_stream_is_refused(client: Client, now: int) -> None:
    client.lines({"job": "a"}, [str(now), "new"])
    reply = client.lines(
        {"job": "a"}, [str(now - 3601 * SECOND), "old"], [str(now - SECOND), "ok"]
    )
    assert reply.status_code == 400
    assert "entry too far behind" in reply.text
    assert [line for _, line in client.select('{job="a"}')] == ["new", "ok"]


def test_a_repeated_entry_is_kept_once(client: Client, now: int) -> None:
    first = [[str(now + n), f"line {n}", {"pid": "1"}] for n in range(50)]
    for _ in range(3):
        assert client.lines({"job": "a"}, *first).status_code == 204
    assert client.lines({"job": "a"}, [str(now + 3), "line 3", {"pid": "2"}]).status_code == 204
    assert len(client.select('{job="a"}', limit=500)) == 51


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_limit_keeps_the_lines_nearest_to_where_reading_begins(
    client: Client, now: int, direction: str
) -> None:
    for part in range(5):
        values = [[str(now - 1000 + part * 100 + n), f"{part * 100 + n}"] for n in range(100)]
        client.lines({"job": "a", "part": str(part % 2)}, *values)
    found = client.select('{job="a"}', limit=150, direction=direction)
    expected = range(150) if direction == "forward" else range(499, 349, -1)
    assert sorted(int(line) for _, line in found) == sorted(expected)


def test_start_is_included_and_end_is_not(client: Client, now: int) -> None:
    client.lines({"job": "a"}, *([str(now + n), str(n)] for n in range(5)))
    found = client.select('{job="a"}', start=now + 1, end=now + 3, direction="forward")
    assert [line for _, line in found] == ["1", "2"]


def test_labels_values_and_series_are_listed(client: Client, now: int) -> None:
    client.lines({"job": "a", "node": "n1"}, [str(now), "x"])
    client.lines({"job": "b", "unit": "u"}, [str(now), "xyz"])
    assert client.get("labels").json()["data"] == ["job", "node", "unit"]
    assert client.get("label/job/values").json()["data"] == ["a", "b"]
    assert client.get("label/job/values", query='{node="n1"}').json()["data"] == ["a"]
    assert client.get("label/job/values", end=now - 10**12).json()["data"] == []
    series = client.get("series", **{"match[]": ['{job="a"}', '{unit=~".+"}']}).json()["data"]
    assert series == [{"job": "a", "node": "n1"}, {"job": "b", "unit": "u"}]
    stats = client.get("index/stats", query='{job=~"a|b"}').json()
    assert stats == {"streams": 2, "chunks": 2, "entries": 2, "bytes": 4}


def test_a_query_may_come_as_a_form(client: Client, now: int) -> None:
    client.lines({"job": "a"}, [str(now), "x"])
    reply = client.session.post(
        f"{client.url}/loki/api/v1/query_range", data={"query": '{job="a"}'}, timeout=5
    )
    assert len(reply.json()["data"]["result"]) == 1


@pytest.mark.parametrize(
    ("path", "params", "told"),
    [
        ("query_range", {"query": '{job="a"'}, "parse error at line 1, col 9: syntax error"),
        ("query_range", {"query": ""}, "parse error"),
        ("query_range", {"query": "{}"}, "at least one regexp or equality matcher"),
        ("query_range", {"query": '{a="b"}', "limit": "5001"}, "max entries limit per query"),
        ("query_range", {"query": '{a="b"}', "limit": "-1"}, "limit"),
        ("query_range", {"query": '{a="b"}', "start": "tomorrow"}, "as a time"),
        ("query_range", {"query": '{a="b"}', "start": "5", "end": "4"}, "end timestamp"),
        ("query_range", {"query": '{a="b"}', "direction": "up"}, "direction"),
        ("query_range", {"query": 'rate({a="b"}[1m])', "step": "0"}, "resolution step"),
        ("query_range", {"query": 'rate({a="b"}[1m])', "step": "1ms"}, "maximum resolution"),
        ("query_range", {"query": '{a=~"("}'}, "error parsing regexp"),
        ("query_range", {"query": '{a="b"} |= "' + "x" * 6000 + '"'}, "query too long"),
        ("query", {"query": '{a="b"}'}, "instant query type"),
        ("series", {}, "0 matcher groups"),
        ("index/stats", {}, "parse error"),
    ],
)
def test_a_wrong_question_is_refused_as_loki_refuses_it(
    client: Client, path: str, params: dict[str, str], told: str
) -> None:
    reply = client.get(path, **params)
    assert reply.status_code == 400, reply.text
    assert told in reply.text


def test_grafanas_health_check_is_answered(client: Client) -> None:
    data = client.get("query", query="vector(1)+vector(1)", time="1").json()["data"]
    assert (data["resultType"], data["result"]) == (
        "vector",
        [{"metric": {}, "value": [1.0, "2"]}],
    )


def test_readiness_metrics_and_build_are_told(client: Client, now: int) -> None:
    client.lines({"job": "a"}, [str(now), "x"])
    assert client.session.get(f"{client.url}/ready", timeout=5).text == "ready\n"
    metrics = client.session.get(f"{client.url}/metrics", timeout=5).text
    assert 'narthex_logstore_entries_total{outcome="stored"} 1.0' in metrics
    assert "narthex_logstore_held_entries 1.0" in metrics
    assert client.get("status/buildinfo").json()["version"]
    assert client.get("nonsense").status_code == 404
    assert client.get("push").status_code == 405


def test_a_foreign_host_name_reads_nothing(client: Client) -> None:
    reply = client.session.get(
        f"{client.url}/loki/api/v1/labels", headers={"Host": "evil.example:80"}, timeout=5
    )
    assert reply.status_code == 421
