"""LogQL cannot be broken out of; an empty answer says why."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex_logstore.logql.parser import parse
from narthex_operator.clients.loki import loki_client
from narthex_operator.clients.prometheus import quoted
from narthex_operator.errors import DeniedError, InvalidError, NotFoundError
from narthex_operator.services.access import GRANTS, Actor, Role, local_actor
from narthex_operator.services.logs import LogService, build_query
from narthex_operator.services.views import LogSearch, NodeState, NodeView
from realstack import free_port, site

ADMIN = local_actor("tests")
AUDITOR = Actor(id="user:7", name="ada", grants=GRANTS[Role.AUDITOR])
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = {"start": NOW - timedelta(hours=1), "end": NOW}


class Nodes:
    """One node's record."""

    def get(self, actor: Actor, ref: str) -> NodeView:
        actor.require("node:read")
        if ref != "web-1":
            raise NotFoundError("no such node")
        return NodeView(id="x", name=ref, address="127.0.0.1:1", state=NodeState.UP, added_at=NOW)


class Store:
    """What speaks like Loki: gives its lines for plain queries, less for filtered ones."""

    def __init__(self, lines: int = 0) -> None:
        self.lines = lines
        self.asked: list[str] = []
        self.refusal = ""

    def answer(self, path: str, _body: bytes) -> tuple[int, str, bytes]:
        self.asked.append(path)
        if self.refusal:
            return 400, "text/plain", self.refusal.encode()
        found = 0 if "nothing" in path else self.lines
        base = int(NOW.timestamp()) * 10**9
        values = [[str(base - n), f"line {n}"] for n in range(found)]
        result = [{"stream": {"node": "web-1", "job": "file"}, "values": values}]
        data = {"resultType": "streams", "result": result if found else []}
        return 200, "application/json", json.dumps({"status": "success", "data": data}).encode()


def service(url: str) -> LogService:
    return LogService(nodes=Nodes(), loki=loki_client(url))  # type: ignore[arg-type]


def search(**more: Any) -> LogSearch:
    return LogSearch(**{**HOUR, **more})


CASES = [
    ({}, '{node=~".+"}'),
    ({"node": "web-1"}, '{node="web-1"}'),
    ({"node": "web-1", "unit": "a.service"}, '{node="web-1", unit="a.service"}'),
    ({"text": 'a "b" \\ {c}'}, '{node=~".+"} |= "a \\"b\\" \\\\ {c}"'),
    ({"text": "a.*b", "regex": True}, '{node=~".+"} |~ "a.*b"'),
    ({"level": "warning"}, '{node=~".+"} | level=~"warn|warning"'),
    ({"text": "\n`\x00"}, '{node=~".+"} |= "\\n`\\u0000"'),
]


@pytest.mark.parametrize(("more", "query"), CASES)
def test_a_search_is_written_as_logql(more: dict[str, Any], query: str) -> None:
    assert build_query(search(**more)) == query


@given(text=st.text(), unit=st.text(min_size=1), filename=st.text(min_size=1))
def test_nothing_that_is_typed_leaves_its_string(text: str, unit: str, filename: str) -> None:
    query = build_query(search(node="web-1", text=text, unit=unit, filename=filename))
    parsed: Any = parse(query)
    read = {matcher.name: matcher.value for matcher in parsed.matchers}
    assert read == {"node": "web-1", "unit": unit, "filename": filename}


@given(st.text())
def test_a_quoted_string_has_one_beginning_and_one_end(text: str) -> None:
    inner = quoted(text)[1:-1]
    bare = inner.replace("\\\\", "").replace('\\"', "")
    assert '"' not in bare
    assert not any(char in inner for char in "\n\r\x00")


def test_lines_come_with_their_exact_time_and_whether_there_are_more() -> None:
    with site(Store(lines=4).answer) as url:
        page = service(url).search(ADMIN, search(node="web-1", limit=3))
    assert [line.line for line in page.lines] == ["line 0", "line 1", "line 2"]
    assert page.more
    assert page.lines[1].ns == str(int(NOW.timestamp()) * 10**9 - 1)
    assert page.empty_reason == ""


@pytest.mark.parametrize(
    ("more", "lines", "why"),
    [
        ({"node": "web-9"}, 5, "no such node"),
        ({"text": "nothing"}, 5, "none passes the filter"),
        ({"text": "nothing"}, 0, "no lines were received"),
        ({}, 0, "no lines were received"),
    ],
)
def test_an_empty_page_says_why(more: dict[str, Any], lines: int, why: str) -> None:
    with site(Store(lines=lines).answer) as url:
        page = service(url).search(ADMIN, search(**more))
    assert page.lines == ()
    assert why in page.empty_reason


def test_a_store_that_is_away_is_named() -> None:
    page = service(f"http://127.0.0.1:{free_port()}").search(ADMIN, search())
    assert "log store" in page.empty_reason
    assert "nothing listens" in page.empty_reason


def test_a_wrong_expression_is_told_in_the_store_s_words() -> None:
    store = Store()
    store.refusal = "parse error: missing argument to repetition operator: `*`"
    with site(store.answer) as url, pytest.raises(InvalidError, match="missing argument"):
        service(url).search(ADMIN, search(text="*", regex=True))


@pytest.mark.parametrize(
    "more",
    [
        {"start": NOW, "end": NOW},
        {"start": NOW - timedelta(days=32)},
        {"limit": 0},
        {"limit": 2001},
        {"level": "loud"},
        {"text": "x" * 1025},
    ],
    ids=str,
)
def test_an_odd_search_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        service("http://127.0.0.1:9").search(ADMIN, search(**more))


def test_who_may_not_read_logs_learns_nothing() -> None:
    quiet = service("http://127.0.0.1:9")
    with pytest.raises(DeniedError):
        quiet.search(AUDITOR, search())
    with pytest.raises(DeniedError):
        quiet.label_values(AUDITOR, "unit")
    with pytest.raises(InvalidError, match="no label"):
        quiet.label_values(ADMIN, "../query")
