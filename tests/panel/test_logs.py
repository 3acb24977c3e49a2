"""The log search page."""

from datetime import UTC, datetime

import pytest
from flask.testing import FlaskClient
from tests.panel.fakes import World

from narthex_operator.services.views import LogLine
from narthex_panel.pages.logs import after_cursor


def line(ns: int, text: str) -> LogLine:
    return LogLine(ns=str(ns), at=datetime.fromtimestamp(ns / 1e9, tz=UTC), line=text)


def test_matches_are_marked_and_escapes_dropped(client: FlaskClient) -> None:
    text = client.get("/logs?q=timed+out").text
    assert "<mark>timed out</mark>" in text
    assert "\x1b" not in client.get("/logs").text


def test_an_empty_search_says_why(client: FlaskClient) -> None:
    assert "no line of the last hour contains that text" in client.get("/logs?q=zzz").text


def test_a_store_that_does_not_answer_says_so_in_the_page(
    client: FlaskClient, world: World
) -> None:
    world.mode = "failing"
    reply = client.get("/logs")
    assert reply.status_code == 200
    assert "the log store does not answer" in reply.text


def test_older_lines_come_as_a_part_that_carries_the_filters(client: FlaskClient) -> None:
    text = client.get("/logs?q=timed&unit=nginx.service").text
    assert "before=" in text
    part = client.get("/logs?q=timed&before=1795000000000000000.1", headers={"HX-Request": "true"})
    assert "<form" not in part.text
    assert "log-line" in part.text


@pytest.mark.parametrize(
    ("cursor", "left"),
    [
        ("", ["c", "b1", "b2", "a"]),
        ("200.1", ["b2", "a"]),
        ("200.2", ["a"]),
        ("100.1", []),
        ("nonsense", ["c", "b1", "b2", "a"]),
    ],
)
def test_no_line_is_shown_twice_or_left_out(cursor: str, left: list[str]) -> None:
    lines = [line(300, "c"), line(200, "b1"), line(200, "b2"), line(100, "a")]
    assert [one.line for one in after_cursor(lines, cursor)] == left
