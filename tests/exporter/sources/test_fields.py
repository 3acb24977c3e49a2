"""Lines are picked by name, wherever they stand now."""

from hypothesis import given
from hypothesis import strategies as st

from narthex_exporter.sources.fields import Fields
from narthex_exporter.sources.place import Paths


def choose(name: str) -> str | None:
    return name.upper() if name.startswith("pg") else None


def picked(fields: Fields[str], text: str) -> list[tuple[str, int]]:
    return [(name, int(rest)) for name, rest in fields.pick(text, choose)]


def test_wanted_lines_are_picked_again_and_again() -> None:
    fields: Fields[str] = Fields.of(Paths())
    for number in (1, 22, 333):
        text = f"nr_free 7\npgin {number}\npgout\t{number + 1}\npgx\n\nother 3\n"
        assert picked(fields, text) == [("PGIN", number), ("PGOUT", number + 1)]


def test_lines_that_moved_are_found() -> None:
    fields: Fields[str] = Fields()
    assert picked(fields, "pgin 1\nother 2\n") == [("PGIN", 1)]
    assert picked(fields, "other 2\npgin 1\n") == [("PGIN", 1)]
    assert picked(fields, "pgnew 5\npgin 1\nother 2\n") == [("PGNEW", 5), ("PGIN", 1)]
    assert picked(fields, "") == []


NAMES = st.lists(st.sampled_from(["pgin", "pgout", "pg", "a", "b"]), max_size=6)


@given(NAMES, st.lists(st.integers(0, 10**12), min_size=1, max_size=5))
def test_the_numbers_are_those_of_the_last_file(names: list[str], turns: list[int]) -> None:
    fields: Fields[str] = Fields()
    for number in turns:
        lines = [(name, number + position) for position, name in enumerate(names)]
        text = "".join(f"{name} {value}\n" for name, value in lines)
        assert picked(fields, text) == [
            (name.upper(), value) for name, value in lines if name.startswith("pg")
        ]
