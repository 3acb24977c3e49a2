"""What our encoder writes, prometheus_client's would have written too."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.registry import to_families
from narthex_exporter.collectors.spec import Block, Kind, Metric, Sample
from narthex_exporter.web import negotiate

ACCEPTS = {False: "", True: "application/openmetrics-text;version=1.0.0"}
# Anything but half characters, which prometheus_client cannot write: ours are tested below.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.floats() | st.integers(-(1 << 70), 1 << 70) | st.booleans()
COUNTS = st.floats(min_value=0, allow_nan=False) | st.integers(0, 1 << 70)


@st.composite
def metrics(draw: st.DrawFn) -> Metric:
    # Histograms and summaries come as blocks only.
    kind = draw(st.sampled_from([Kind.COUNTER, Kind.GAUGE, Kind.UNTYPED]))
    # The library has no counters without it; ours are tested below.
    name = draw(st.sampled_from("abcdefgh")) + ("_total" if kind is Kind.COUNTER else "")
    count = draw(st.integers(0, 3))
    return Metric(name, kind, draw(TEXT), ("one", "two", "three")[:count])


@st.composite
def scrapes(draw: st.DrawFn) -> list[list[Sample]]:
    """Some scrapes of the same metrics, no two of which share a name in either format."""
    found: dict[str, Metric] = {}
    for metric in draw(st.lists(metrics(), max_size=5)):
        found.setdefault(metric.name.removesuffix("_total"), metric)
    if not found:
        return [[]]
    sample = st.sampled_from(list(found.values())).flatmap(
        lambda metric: st.builds(
            Sample,
            st.just(metric),
            st.tuples(*[st.sampled_from(["", "x", '"\\\n']) | TEXT for _ in metric.labels]),
            COUNTS if metric.kind is Kind.COUNTER else NUMBERS,
        )
    )
    return draw(st.lists(st.lists(sample, max_size=12), min_size=1, max_size=4))


class Page:
    def __init__(self, samples: Iterable[Sample]) -> None:
        self.samples = samples

    def collect(self) -> Iterator[Any]:
        return to_families(self.samples)


def parsed(text: str, *, openmetrics: bool) -> dict[str, Any]:
    parse: Any = parse_openmetrics if openmetrics else parse_text
    families = parse(text)
    return {
        family.name: (
            family.type,
            family.documentation,
            {
                (sample.name, tuple(sorted(sample.labels.items()))): str(
                    float(sample.value) + 0.0
                )  # nought has no sign here
                for sample in family.samples
            },
        )
        for family in families
    }


def comments(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.startswith("#")]


@pytest.mark.parametrize("openmetrics", [False, True])
@settings(max_examples=400)
@given(turns=scrapes())
def test_it_says_what_the_library_says(turns: list[list[Sample]], *, openmetrics: bool) -> None:
    encoder = Encoder()
    theirs, _ = choose_encoder(ACCEPTS[openmetrics])
    for samples in turns:
        ours = encoder.encode(samples, openmetrics=openmetrics).decode()
        other = theirs(Page(samples)).decode()
        assert parsed(ours, openmetrics=openmetrics) == parsed(other, openmetrics=openmetrics)
        assert comments(ours) == comments(other)


GAUGE = Metric("a", Kind.GAUGE, "Help.", ("who",))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1 << 63, "9223372036854775808"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
        (True, "1.0"),
    ],
)
def test_numbers_are_written_as_prometheus_reads_them(value: float, text: str) -> None:
    assert Encoder().encode([GAUGE.at(value, "x")]).decode().endswith(f'a{{who="x"}} {text}\n')


def test_half_characters_and_bytes_of_other_encodings_are_shown() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert 'who="caf\ufffd"' in Encoder().encode([GAUGE.at(1, name)]).decode()
    assert Encoder().encode([GAUGE.at(1, "\ud800")]).decode()


def test_a_counter_without_total_is_one_in_text_and_unknown_in_openmetrics() -> None:
    # cAdvisor and smartctl_exporter have such names; OpenMetrics forbids them.
    failures = Metric("container_memory_failcnt", Kind.COUNTER, "Limits hit.")
    assert b"# TYPE container_memory_failcnt counter" in Encoder().encode([failures.at(1)])
    text = Encoder().encode([failures.at(1)], openmetrics=True).decode()
    assert "# TYPE container_memory_failcnt unknown" in text
    assert parsed(text, openmetrics=True)


def test_a_series_that_is_gone_is_told_no_more_and_forgotten() -> None:
    encoder = Encoder()
    encoder.encode([GAUGE.at(1, str(n)) for n in range(5000)])
    for _ in range(2):
        assert encoder.encode([GAUGE.at(1, "x")]).count(b"\na{") == 1
    assert len(encoder._groups["a"].lines) < 100


def test_values_that_come_and_go_are_as_new_each_time() -> None:
    encoder = Encoder()
    for value in (1, 2, 2, 1, 3.5):
        text = encoder.encode([GAUGE.at(value, "x"), GAUGE.at(value, 'y "1 2" z')]).decode()
        assert text.endswith(f'a{{who="x"}} {value}\na{{who="y \\"1 2\\" z"}} {value}\n')
        encoder.encode([])


def test_a_name_of_ours_with_other_labels_stays_apart() -> None:
    other = Metric("a", Kind.GAUGE, "Theirs.", ("file",))
    text = Encoder().encode([GAUGE.at(1, "x"), other.at(2, "x"), other.at(3, "y")]).decode()
    assert text.count("# TYPE") == 1
    assert text.endswith('a{who="x"} 1\na{file="x"} 2\na{file="y"} 3\n')


def test_blocks_stand_with_the_samples_of_their_name() -> None:
    block = Block(GAUGE, 'a{who="b"} 2\na{who="c"} 3\n', 2)
    zed = Metric("z", Kind.GAUGE, "Last.")
    text = Encoder().encode([zed.at(0), GAUGE.at(1, "x"), block]).decode()
    assert text.index('a{who="c"} 3') < text.index("# HELP z")
    families = {family.name: family for family in to_families([GAUGE.at(1, "x"), block])}
    assert [sample.value for sample in families["a"].samples] == [1, 2, 3]


def test_only_asked_names_are_written() -> None:
    zed = Metric("z", Kind.GAUGE, "Last.")
    text = Encoder().encode([zed.at(0), GAUGE.at(1, "x")], names=frozenset({"z"})).decode()
    assert text == "# HELP z Last.\n# TYPE z gauge\nz 0\n"


KINDS_ASKED = st.sampled_from(
    ["application/openmetrics-text", "text/plain", "*/*", "application/json", ""]
)
WISHES = st.lists(
    st.sampled_from(
        ["version=1.0.0", "version=0.0.4", "q=0.5", "escaping=allow-utf-8", "escaping=x", "x"]
    ),
    max_size=3,
)


@given(st.lists(st.tuples(KINDS_ASKED, WISHES), max_size=4))
def test_the_format_is_chosen_as_the_library_does(asked: list[tuple[str, list[str]]]) -> None:
    accept = ", ".join(";".join([kind, *wishes]) for kind, wishes in asked)
    _, content_type = choose_encoder(accept)
    openmetrics, ours = negotiate(accept)
    assert openmetrics == content_type.startswith("application/openmetrics-text")
    assert ours == content_type
