"""What the exporter answers, and to whom."""

import gzip
import threading
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from narthex_exporter.transport.identity import Role

READS = ("/metrics", "/", "/-/healthy", "/-/ready")


def names(text: str) -> set[str]:
    return {s.name for family in text_string_to_metric_families(text) for s in family.samples}


def test_a_scrape_is_text_with_a_content_type(site: Any) -> None:
    answer = site.ask("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert {
        "node_cpu_seconds_total",
        "node_filesystem_size_bytes",
        "narthex_exporter_build_info",
        "narthex_certificate_not_after_timestamp_seconds",
        "process_resident_memory_bytes",
    } <= names(answer.text)
    assert not [name for name in names(answer.text) if name.endswith("_created")]


def test_openmetrics_is_given_where_asked(site: Any) -> None:
    answer = site.ask(
        "/metrics",
        headers={"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"},
    )
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    assert list(parse_openmetrics(answer.text))  # type: ignore[no-untyped-call]  # published so


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain;version=x",
        "application/openmetrics-text;version=9.0",
        "application/openmetrics-text;version=",
        ";;;,,,",
        "application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    ],
)
def test_an_odd_wish_gets_plain_text(site: Any, accept: str) -> None:
    answer = site.ask("/metrics", headers={"Accept": accept})
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "node_load1" in names(answer.text)


@pytest.mark.parametrize(
    ("accept", "zipped"),
    [("gzip", True), ("deflate, gzip;q=0.5", True), ("*", True), ("gzip;q=0", False), ("", False)],
)
def test_gzip_is_used_where_wanted(site: Any, accept: str, zipped: bool) -> None:  # noqa: FBT001
    answer = site.ask("/metrics", headers={"Accept-Encoding": accept})
    assert (answer.headers["Content-Encoding"] == "gzip") is zipped
    body = gzip.decompress(answer.body) if zipped else answer.body
    assert b"node_load1 " in body


@pytest.mark.parametrize(
    ("query", "present", "absent"),
    [
        (
            "collect[]=loadavg&collect[]=uname",
            {"node_load1", "node_uname_info"},
            {"node_time_seconds"},
        ),
        ("exclude[]=loadavg", {"node_time_seconds"}, {"node_load1"}),
        ("name[]=node_load1", {"node_load1"}, {"node_load5", "node_uname_info"}),
        ("collect%5B%5D=loadavg", {"node_load1"}, {"node_uname_info"}),
    ],
)
def test_a_scrape_can_be_narrowed(
    site: Any, query: str, present: set[str], absent: set[str]
) -> None:
    found = names(site.ask(f"/metrics?{query}").text)
    assert present <= found
    assert not absent & found


@pytest.mark.parametrize(
    "query", ["collect[]=loadavg&exclude[]=uname", "collect[]=nonsense", "exclude[]=%0a%3Cb%3E"]
)
def test_a_wrong_narrowing_is_a_bad_request(site: Any, query: str) -> None:
    assert site.ask(f"/metrics?{query}").status == 400


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize(
    ("role", "status"),
    [(Role.SCRAPE, 200), (Role.OPERATOR, 200), (Role.NODE, 403), (Role.SERVER, 403)],
)
def test_roles_decide_who_reads(start: Any, path: str, role: Role, status: int) -> None:
    site = start()
    site.exporter.parts.started = True
    assert site.ask(path, role=role).status == status
    assert site.ask(path, role=role, method="HEAD").body == b""


@pytest.mark.parametrize("role", [Role.SCRAPE, Role.NODE, Role.SERVER])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/manifest"),
        ("POST", "/api/v1/actions/service.restart/runs"),
        ("DELETE", "/api/v1/runs/x"),
        ("GET", "/api/"),
        ("GET", "/api/../metrics"),
    ],
)
def test_api_is_for_the_operator_alone(site: Any, role: Role, method: str, path: str) -> None:
    answer = site.ask(path, role=role, method=method, headers={"Narthex-Ticket": "x"})
    assert answer.status == 403
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["type"] == "role-refused"


@pytest.mark.parametrize(
    "path", ["/%61pi/v1/manifest", "//api/v1/manifest", "/API/v1", "/metrics/"]
)
def test_no_other_spelling_reaches_the_actor(site: Any, path: str) -> None:
    assert site.ask(path, role=Role.OPERATOR).status == 404


def test_only_reading_is_allowed_outside_api(site: Any) -> None:
    answer = site.ask("/metrics", method="POST", body=b"x")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_ready_is_told_only_when_all_runs(site: Any) -> None:
    assert site.ask("/-/ready").status == 503
    site.exporter.parts.started = True
    assert site.ask("/-/ready").status == 200


def test_too_many_scrapes_are_turned_away(start: Callable[..., Any]) -> None:
    site = start(max_requests=1)
    hold, inside = threading.Event(), threading.Event()
    web = site.exporter.server.app

    def slow() -> list[Any]:
        inside.set()
        hold.wait(5)
        return []

    web.extra = (slow,)
    first = threading.Thread(target=site.ask, args=("/metrics",))
    first.start()
    assert inside.wait(5)
    assert site.ask("/metrics").status == 503
    hold.set()
    first.join()
    assert site.ask("/metrics").status == 200


def test_requests_are_counted_without_paths_of_others(site: Any) -> None:
    site.ask("/made-up/by/somebody")
    site.ask("/-/healthy")
    text = site.ask("/metrics").text
    assert 'narthex_exporter_http_requests_total{code="404",handler="other"} 1' in text
    assert 'narthex_exporter_http_requests_total{code="200",handler="/-/healthy"} 1' in text
    assert "made-up" not in text


def test_the_landing_page_links_to_metrics(start: Callable[..., Any]) -> None:
    answer = start(telemetry_path="/m").ask("/")
    assert "href='/m'" in answer.text
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'"
