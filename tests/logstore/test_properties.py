"""Whatever comes in, parsers give a value or a refusal in words, never anything else."""

import contextlib
import json
import zlib

import cramjam
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex_logstore.block import Block, pack
from narthex_logstore.logql.parser import parse, parse_stream, unquote
from narthex_logstore.logql.pipeline import compile_pipeline
from narthex_logstore.logql.tree import LogQuery
from narthex_logstore.logql.units import parse_bytes, parse_duration
from narthex_logstore.model import Entry, Limits, PushError, QueryError, quote
from narthex_logstore.protobuf import read_push_request
from narthex_logstore.push import read_push, validate

PIECES = st.sampled_from(
    ["{", "}", "job", "=", "!=", "=~", "!~", '"a"', "`b`", "|", "|=", "|~", "json", "logfmt",
     "level", ">", "5", "5s", "10KB", "(", ")", "[5m]", "rate", "count_over_time", "sum", "by",
     "without", ",", "or", "and", "line_format", '"{{.a}}"', "+", "-", "*", "/", "bool", "vector",
     " ", "\n", "#", "é", '"', "\\"]
)  # fmt: skip
text = st.text(st.characters(codec="utf-8"), max_size=60)
entries = st.lists(
    st.builds(
        Entry,
        st.integers(0, 1 << 62),
        st.binary(max_size=200),
        st.dictionaries(text, text, max_size=3).map(lambda d: tuple(sorted(d.items()))),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.lists(PIECES, max_size=30).map(" ".join), st.text(max_size=80)))
def test_any_query_is_parsed_or_refused(query: str) -> None:
    with contextlib.suppress(QueryError):
        parsed = parse(query)
        if isinstance(parsed, LogQuery):
            compile_pipeline(parsed.stages)


@given(st.text(st.characters(codec="utf-8"), max_size=100))
def test_a_quoted_string_reads_as_itself(value: str) -> None:
    assert unquote(quote(value)) == value
    assert parse_stream(f"{{a={quote(value)}}}") == {"a": value}


@settings(max_examples=200, deadline=None)
@given(entries)
def test_a_block_gives_back_what_was_packed(given_entries: list[Entry]) -> None:
    block = Block(pack(given_entries))
    found = [block.entry(n) for n in range(len(block.times))]
    assert found == sorted(given_entries, key=lambda entry: entry.ts)
    for n, entry in enumerate(found):
        if entry.line and b"\n" not in entry.line:
            assert n in block.holding(entry.line)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_protobuf_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(PushError):
        list(read_push_request(data))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        values,
        st.fixed_dictionaries(
            {"streams": st.lists(st.fixed_dictionaries({"stream": values, "values": values}))}
        ),
    ),
    st.sampled_from(["", "gzip", "deflate", "x"]),
)
def test_any_json_push_is_read_or_refused(data: object, encoding: str) -> None:
    body = json.dumps(data).encode()
    body = zlib.compress(body) if encoding == "deflate" else body
    with contextlib.suppress(PushError):
        limits = Limits()
        raw = read_push(body, content_type="application/json", encoding=encoding, limits=limits)
        validate(raw, limits=limits, now_ns=10**18)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_snappy_push_is_read_or_refused(data: bytes, packed: bool) -> None:  # noqa: FBT001
    body = bytes(cramjam.snappy.compress_raw(data)) if packed else data
    with contextlib.suppress(PushError):
        read_push(body, content_type="application/x-protobuf", encoding="", limits=Limits())


@given(st.text(max_size=50))
def test_any_text_is_a_quantity_or_refused(value: str) -> None:
    with contextlib.suppress(ValueError):
        parse_duration(value)
    with contextlib.suppress(ValueError):
        parse_bytes(value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_line_passes_the_parsing_stages(line: bytes) -> None:
    query = parse('{a="b"} | json | logfmt | x > 5s or y < 3 | line_format "{{.x}}"')
    assert isinstance(query, LogQuery)
    compile_pipeline(query.stages).transform(line, {"a": "b"})
