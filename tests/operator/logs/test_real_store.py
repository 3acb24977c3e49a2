"""Log search against the embedded store, over its real HTTP API."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from narthex_logstore.app import Config, running
from narthex_operator.clients.loki import loki_client
from narthex_operator.services.access import local_actor
from narthex_operator.services.logs import LogService
from narthex_operator.services.views import LogPage, LogSearch, NodeState, NodeView
from realstack import post

ADMIN = local_actor("tests")
LINES = (
    ("a plain line", "info"),
    ('with "quotes" and \\ slash', "warn"),
    ("ошибка <b>bold</b>", "error"),
)


class Nodes:
    """One node's record."""

    def get(self, _actor: Any, ref: str) -> NodeView:
        return NodeView(
            id="x", name=ref, address="127.0.0.1:1", state=NodeState.UP, added_at=datetime.now(UTC)
        )


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogService]:
    folder: Path = tmp_path_factory.mktemp("store")
    with running(Config(port=0, path=folder)) as store:
        url = f"http://127.0.0.1:{store.port}"
        now = time.time_ns() - 10**9
        values = [[str(now + n), line, {"level": level}] for n, (line, level) in enumerate(LINES)]
        stream = {"node": "web-1", "job": "systemd-journal", "unit": "a.service"}
        post(f"{url}/loki/api/v1/push", {"streams": [{"stream": stream, "values": values}]})
        yield LogService(nodes=Nodes(), loki=loki_client(url))  # type: ignore[arg-type]


def search(logs: LogService, **more: Any) -> LogPage:
    end = datetime.now(UTC) + timedelta(seconds=5)
    return logs.search(
        ADMIN, LogSearch(**{"start": end - timedelta(minutes=5), "end": end, **more})
    )


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"node": "web-1"}, [2, 1, 0]),
        ({"node": "web-1", "backward": False}, [0, 1, 2]),
        ({"text": 'with "quotes" and \\'}, [1]),
        ({"text": "<b>"}, [2]),
        ({"text": "^ош.*$", "regex": True}, [2]),
        ({"level": "warning"}, [1]),
        ({"unit": "a.service", "limit": 1}, [2]),
        ({"unit": "b.service"}, []),
    ],
    ids=str,
)
def test_lines_are_found_by_what_people_type(
    logs: LogService, more: dict[str, Any], found: list[int]
) -> None:
    page = search(logs, **more)
    assert [line.line for line in page.lines] == [LINES[number][0] for number in found]
    assert bool(page.empty_reason) is not bool(found)


def test_a_line_tells_its_labels_and_level(logs: LogService) -> None:
    (line,) = search(logs, text="plain").lines
    assert line.labels["node"] == "web-1"
    assert line.labels["level"] == "info"


def test_values_of_labels_are_listed_for_filters(logs: LogService) -> None:
    assert list(logs.label_values(ADMIN, "unit")) == ["a.service"]
    assert list(logs.label_values(ADMIN, "unit", node="web-1")) == ["a.service"]
