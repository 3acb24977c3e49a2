"""Forms derived from declarations."""

import pytest

from narthex_exporter.actions import CATALOGUE
from narthex_panel.forms import complete, fields_of, html_pattern, parse, written


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_action_has_a_form_with_titles(name: str) -> None:
    fields = fields_of(CATALOGUE[name].params.model_json_schema())
    assert fields
    assert all(field.title for field in fields)


def test_a_form_knows_kinds_bounds_and_choices() -> None:
    fields = {
        field.name: field
        for field in fields_of(CATALOGUE["process.signal"].params.model_json_schema())
    }
    assert (fields["pid"].kind, fields["pid"].minimum) == ("number", 1)
    assert fields["signal"].kind == "choice"
    assert fields["signal"].choices[0] == fields["signal"].default == "TERM"


def test_strings_become_typed_parameters_and_nonsense_is_left_for_validation() -> None:
    fields = fields_of(CATALOGUE["process.renice"].params.model_json_schema())
    assert parse(fields, {"pid": "42", "start_ticks": "7", "nice": "-5", "x": "y"}) == {
        "pid": 42,
        "start_ticks": 7,
        "nice": -5,
    }
    assert parse(fields, {"pid": "42; rm", "nice": ""})["pid"] == "42; rm"
    assert not complete(fields, {"pid": 42})


def test_lists_are_lines_and_what_was_asked_comes_back_the_same() -> None:
    fields = fields_of(CATALOGUE["container.run"].params.model_json_schema())
    form = {
        "engine": "docker", "container": "web", "image": "web:1", "command": "serve\r\n--x y\r\n",
        "ports": "127.0.0.1:80:80/tcp", "cpus": "0.5", "memory_mib": "64", "read_only": "1",
        "volumes": "",
    }  # fmt: skip
    given = parse(fields, form)
    assert given["command"] == ["serve", "--x y"]
    assert given["read_only"] is True
    assert "volumes" not in given
    again = parse(fields, {name: written(value) for name, value in given.items()})
    assert again == given
    checked = CATALOGUE["container.run"].params.model_validate(given)
    assert checked == CATALOGUE["container.run"].params.model_validate(again)


def test_what_may_be_left_out_is_not_chosen_by_the_way() -> None:
    fields = {
        field.name: field
        for field in fields_of(CATALOGUE["container.update"].params.model_json_schema())
    }
    assert fields["restart"].choices[0] == fields["restart"].default == ""
    assert fields["pids"].kind == "number"
    given = parse(tuple(fields.values()), {"container": "web", "restart": "", "pids": ""})
    assert given == {"container": "web"}


@pytest.mark.parametrize(
    ("python", "html"),
    [
        ("^[a-z-]+$", "[a-z\\-]+"),
        ("^[-a-z]$", "[\\-a-z]"),
        ("[a-z\\-]", "[a-z\\-]"),
        ("^[^/|]+$", "[^\\/\\|]+"),
        ("^a-b$", "a-b"),
    ],
)
def test_patterns_are_rewritten_for_browsers(python: str, html: str) -> None:
    assert html_pattern(python) == html
