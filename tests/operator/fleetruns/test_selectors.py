"""What a selector means, and that it never means more than it says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex_operator.errors import InvalidError
from narthex_operator.services.selectors import (
    MAX_TEXT,
    attributes_of,
    check_labels,
    parse_selector,
)

FLEET = {
    "web-1": attributes_of("web-1", "edge", {"env": "prod", "role": "web"}),
    "web-2": attributes_of("web-2", "edge", {"env": "test", "role": "webby"}),
    "db-1": attributes_of("db-1", "", {"env": "prod"}),
    "all-in": attributes_of("all-in", "", {}),
}


def chosen(text: str) -> set[str]:
    selector = parse_selector(text)
    return {name for name, attributes in FLEET.items() if selector.matches(attributes)}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("all", set(FLEET)),
        ("web-1", {"web-1"}),
        (" web-1 , db-1 ", {"web-1", "db-1"}),
        ("@edge", {"web-1", "web-2"}),
        ("@edge,db-1", {"web-1", "web-2", "db-1"}),
        ('env="prod"', {"web-1", "db-1"}),
        ('{env="prod",}', {"web-1", "db-1"}),
        ('env="prod",role=~"web.*"', {"web-1"}),
        ('env="prod",role!="web"', {"db-1"}),
        ('env=~".+",role!~"web"', {"web-2", "db-1"}),
        ("role=~'web'", {"web-1"}),
        ("env=`prod`", {"web-1", "db-1"}),
        (r'env="\u0070rod"', {"web-1", "db-1"}),
        ('group="edge",env="test"', {"web-2"}),
        ('name=~"web-[0-9]+"', {"web-1", "web-2"}),
        ('name="nobody"', set()),
        ("env", set()),
    ],
)
def test_it_means(text: str, wanted: set[str]) -> None:
    assert chosen(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "*", '["*"]', "web-*", "all,web-1", "web-1,web-1", "@edge,@edge", "web-1;db-1",
        'env="prod",web-1', 'web-1,env="prod"', 'env="prod" role="web"', 'env=="prod"',
        'env="prod', r'env="\x"', r'env="\ud800"', 'env="a\nb"', '1a="x"', 'a-b="x"', 'a.b="x"',
        'env!="prod"', 'env=~".*"', 'env=""', "{}", '{env="prod"', 'env=~"("', 'env=~"(a){2000}"',
        'env=~"(?=a)"', "@", "@@edge", ",", "web-1,,db-1", "\x00", "x" * (MAX_TEXT + 1),
    ],
)  # fmt: skip
def test_what_is_no_selector_is_refused_with_words(text: str) -> None:
    with pytest.raises(InvalidError) as told:
        parse_selector(text)
    assert told.value.errors[0].path == "on"
    assert told.value.hint


def test_a_label_cannot_pretend_to_be_a_name_or_a_group() -> None:
    assert attributes_of("web-1", "", {"name": "db-1", "group": "edge"})["name"] == "web-1"
    with pytest.raises(InvalidError, match="taken"):
        check_labels({"name": "db-1"})


@pytest.mark.parametrize(
    "labels",
    [{"1a": "x"}, {"a-b": "x"}, {"a": ""}, {"a": "x" * 129}, {"a": "x\n"}, {"": "x"},
     {"group": "x"}, {"__a": "x"}, {"a" * 64: "x"}, {f"a{n}": "x" for n in range(33)}],
)  # fmt: skip
def test_what_is_no_label_is_refused(labels: dict[str, str]) -> None:
    with pytest.raises(InvalidError):
        check_labels(labels)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    try:
        parse_selector(text)
    except InvalidError:
        return


QUOTED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=20)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_a_quoted_value_matches_itself_and_nothing_else(value: str, other: str) -> None:
    if not value:
        return
    selector = parse_selector(f'env="{value.translate(QUOTED)}"')
    assert selector.matches(attributes_of("n", "", {"env": value}))
    assert selector.matches(attributes_of("n", "", {"env": other})) is (other == value)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES), VALUES)
def test_a_matcher_and_its_negation_share_the_nodes(labels: dict[str, str], value: str) -> None:
    quoted = value.translate(QUOTED)
    attributes = attributes_of("n", "", labels)
    some = 'name=~".+"'
    is_so = parse_selector(f'{some},a="{quoted}"').matches(attributes)
    is_not = parse_selector(f'{some},a!="{quoted}"').matches(attributes)
    assert is_so is not is_not
