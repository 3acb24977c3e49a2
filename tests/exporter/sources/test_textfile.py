"""The text format is read as Prometheus reads it, or refused with its line's number."""

import os
from pathlib import Path

import pytest

from narthex_exporter.sources.textfile import MOST_BYTES, Line, parse, read


def series(data: bytes) -> dict[str, float]:
    found = {}
    for line in parse(data):
        pairs = ",".join(f"{k}={v}" for k, v in zip(line.labels, line.values, strict=True))
        found[f"{line.name}{{{pairs}}}"] = line.value
    return found


def test_a_sample_has_all_that_a_metric_needs() -> None:
    data = b'# HELP a_b It\\n is \\\\.\n# TYPE a_b gauge\na_b{y="2",x="1"} 7\n'
    assert parse(data) == [Line("a_b", "a_b", "gauge", "It\n is \\.", ("x", "y"), ("1", "2"), 7)]


def test_what_is_not_described_is_untyped() -> None:
    assert parse(b"a 1.5\n") == [Line("a", "a", "untyped", None, (), (), 1.5)]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"", {}),
        (b"\n\n# any comment\n#\n# HELP\n", {}),
        (b"a 1\r\nb\t2\r\n", {"a{}": 1, "b{}": 2}),
        (b"a:b:c 1\n", {"a:b:c{}": 1}),
        (b"a{} 1\n", {"a{}": 1}),
        (b'a { x = "1" , } 1e3\n', {"a{x=1}": 1000}),
        (b'a{x="a\\"b\\\\c\\nd,}"} 1\n', {'a{x=a"b\\c\nd,}}': 1}),
        (b'a{x="\xff"} 1\n', {"a{x=\ufffd}": 1}),
        (b'a{x=""} 1\n', {"a{}": 1}),
        (b"a +Inf\nb -inf\n", {"a{}": float("inf"), "b{}": float("-inf")}),
        (b"a 18446744073709551615\n", {"a{}": 18446744073709551615.0}),
        (b"a -3\n", {"a{}": -3}),
    ],
)
def test_samples_are_read(data: bytes, wanted: dict[str, float]) -> None:
    assert series(data) == wanted


def test_not_a_number_is_a_value() -> None:
    assert parse(b"a NaN\n")[0].value != parse(b"a NaN\n")[0].value


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"a 1", "last line is not ended"),
        (b"a 1\nb", "last line is not ended"),
        (b"a 1\nb\n", "line 2: there is no value"),
        (b"a{x=\n", "line 1: the labels are malformed"),
        (b'a{x="1" 2\n', "line 1: the labels are malformed"),
        (b'a{x="\\q"} 2\n', "line 1: the labels are malformed"),
        (b'a{x="1",x="2"} 2\n', "line 1: a label comes twice"),
        (b'a{1="1"} 2\n', "line 1: the labels are malformed"),
        (b"a 1 1700000000000\n", "line 1: timestamps are refused"),
        (b"a one\n", "line 1: the value is no number"),
        (b"a 1_000\n", "line 1: the value is no number"),
        ("a \u0661\n".encode(), "line 1: the value is no number"),
        (b"a 1\na 2\n", "line 2: this series has been there already"),
        (b'a{x="1",y=""} 1\na{x="1"} 2\n', "line 2: this series has been there already"),
        (b"1a 2\n", "line 1: this is no metric name"),
        (b"a-b 2\n", "line 1: this is no metric name"),
        (b"# TYPE a thing\n", "line 1: there is no such type"),
        (b"# TYPE a gauge\n# TYPE a gauge\n", "line 2: a second TYPE"),
        (b"a 1\n# TYPE a gauge\n", "line 2: a second TYPE"),
        (b"# HELP a b\n# HELP a c\n", "line 2: a second HELP"),
        (b"# TYPE a histogram\na 1\n", "line 2: a histogram has buckets"),
        (b"# TYPE a histogram\na_bucket 1\n", "line 2: there is no label le"),
        (b'# TYPE a histogram\na_bucket{le="x"} 1\n', "line 2: the value is no number"),
        (b'# TYPE a histogram\na_bucket{le="NaN"} 1\n', "line 2: a bucket has no bound"),
        (b'# TYPE a histogram\na_bucket{le="1"} 1\n', "neither a count"),
        (
            b'# TYPE a histogram\na_bucket{le="1"} 4\na_bucket{le="2"} 3\na_count 5\n',
            "hold less than smaller",
        ),
        (b"# TYPE a summary\na 1\n", "line 2: there is no label quantile"),
        (b'# TYPE a summary\na{quantile="7"} 1\n', "line 2: a quantile is from 0 to 1"),
        (b"\x00\x01\x02\n", "line 1: this is no metric name"),
    ],
)
def test_what_is_wrong_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(data)


def test_a_refusal_does_not_show_what_the_file_holds() -> None:
    with pytest.raises(ValueError, match="line 1") as refusal:
        parse(b"root:$6$secret:19000:0:99999:7:::\n")
    assert "secret" not in str(refusal.value)


def test_a_histogram_is_made_whole() -> None:
    data = (
        b"# TYPE a histogram\n"
        b'a_bucket{le="10",x="y"} 4\na_bucket{x="y",le="0.5"} 1\n'
        b'a_count{x="y"} 5\na_sum{x="y"} 3.5\n'
    )
    found = parse(data)
    assert {line.family for line in found} == {"a"}
    assert series(data) == {
        "a_bucket{le=0.5,x=y}": 1,
        "a_bucket{le=10.0,x=y}": 4,
        "a_bucket{le=+Inf,x=y}": 5,
        "a_sum{x=y}": 3.5,
        "a_count{x=y}": 5,
    }
    assert [line.name for line in found][-2:] == ["a_sum", "a_count"]


def test_a_summary_keeps_its_samples_together() -> None:
    data = b'# TYPE a summary\na{quantile="0.9"} 1\na_sum 2\na_count 3\na_bucket 4\n'
    assert [(line.family, line.name) for line in parse(data)] == [
        ("a", "a"), ("a", "a_sum"), ("a", "a_count"), ("a_bucket", "a_bucket"),
    ]  # fmt: skip


def test_help_may_come_last() -> None:
    assert parse(b"a 1\n# HELP a It is.\n")[0].help == "It is."


def test_a_file_is_parsed_once_until_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "a.prom"
    file.write_text("a 1\n")
    first = read(str(file))
    assert first.lines[0].value == 1
    assert read(str(file), known=first) is first
    file.write_text("a 22\n")
    assert read(str(file), known=first).lines[0].value == 22


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(100 << 20)
    errors = {name.name: read(str(name)).error for name in tmp_path.iterdir()}
    assert errors == {
        "folder": "it is no regular file",
        "fifo": "it is no regular file",
        "dangling": "no such file or directory",
        "loop": "too many levels of symbolic links",
        "huge": f"it is larger than {MOST_BYTES >> 20} MiB",
    }
