"""Text from nodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex_panel.text import clean, matches, one_line


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "red"),
        ("a\x00b\x08c", "a�b�c"),
        ("user\u202egnp.exe", "user�gnp.exe"),
        ("a\u200bb", "a�b"),
        ("line\r\nnext\ttab", "line\nnext\ttab"),
        ("\ud800", "�"),
    ],
)
def test_escapes_vanish_and_hidden_characters_show(raw: str, shown: str) -> None:
    assert clean(raw) == shown


@given(st.text(alphabet=st.characters()))
def test_no_control_or_surrogate_survives(raw: str) -> None:
    assert all(
        char in "\n\t" or char.isprintable() or char.isspace()
        for char in clean(raw)
        if ord(char) < 0xA0
    )
    assert "\n" not in one_line(raw)


def test_long_text_is_cut() -> None:
    assert clean("x" * 100, 10) == "x" * 10 + "…"


@given(st.text(), st.text(min_size=1))
def test_marking_loses_nothing(line: str, wanted: str) -> None:
    assert "".join(part for part, _ in matches(line, wanted)) == line
