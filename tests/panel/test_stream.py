"""Live streams in a real Chromium, served as the operator serves them."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright
from tests.panel.fake_runs import process
from tests.panel.fakes import World, services
from tests.panel.test_browser import CHROMIUM, FLAGS, HOSTILE, Site
from tests.panel.webapp import make_app

from narthex_exporter.transport.server import Limits, Listener, Server, listen_tcp
from narthex_panel.live import Live, Shared

WAIT_SECONDS = 20.0


@pytest.fixture
def site() -> Iterator[Site]:
    world = World(follows=True)
    sock = listen_tcp("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    live = Live(shared=Shared(interval_seconds=0.3), lifetime_seconds=20.0)
    app = make_app(services(world), live=live, origin=url)
    with Server(app, [Listener(sock=sock)], Limits()):
        yield Site(url, world)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(locale="en-GB", timezone_id="Europe/Moscow")
    yield made
    made.close()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def change(*rows: dict[str, Any], order: list[str]) -> dict[str, Any]:
    return {"rows": list(rows), "order": order, "total": len(order)}


def part(*texts: str, cursor: str, dropped: int = 0) -> dict[str, Any]:
    lines = [
        {
            "at": "2026-11-24T10:00:00Z",
            "priority": 6,
            "identifier": "nginx",
            "pid": 7,
            "text": text,
        }
        for text in texts
    ]
    return {"lines": lines, "cursor": cursor, "dropped": dropped}


def hide(page: Any, *, hidden: bool) -> None:
    page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_processes_change_in_place_and_hold_still_under_the_pointer(
    site: Site, context: BrowserContext
) -> None:
    told = site.world.told.setdefault("process.top", [])
    page = site.open(context)
    page.set_default_timeout(WAIT_SECONDS * 1000)
    page.goto(f"{site.url}/nodes/web-1/processes")
    page.locator("[data-fresh]").get_by_text("Live").wait_for()
    nginx = page.locator('tr[data-row="4242-424200"]')
    nginx.hover()
    nginx.evaluate("(row) => { row.querySelector('a').focus(); row.marked = true; }")
    told.append(
        change(
            process(4242, "nginx", 0.93, 48_000_000),
            process(99, HOSTILE, 1.0, 1, cmdline=HOSTILE),
            order=["99-9900", "4242-424200"],
        )
    )
    nginx.get_by_text("93%").wait_for()
    rows = page.locator("tr[data-row]")
    assert rows.first.get_attribute("data-row") == "4242-424200"
    assert nginx.evaluate("(row) => row.marked && row.contains(document.activeElement)")
    assert page.locator("tr.is-gone").count() > 3
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(0, 0)
    expect(page.locator("tr[data-row]")).to_have_count(2)
    assert rows.first.get_attribute("data-row") == "99-9900"
    assert page.evaluate("window.pwned") is None
    assert site.complaints == []


def test_a_journal_goes_on_where_it_was_and_can_be_held(
    site: Site, context: BrowserContext
) -> None:
    told = site.world.told.setdefault("service.journal", [])
    told.append(part("first line", HOSTILE, cursor="s=1;i=1"))
    page = site.open(context)
    page.set_default_timeout(WAIT_SECONDS * 1000)
    page.goto(f"{site.url}/nodes/web-1/services/nginx.service")
    log = page.get_by_role("log")
    log.get_by_text("first line").wait_for()
    page.get_by_role("button", name="Pause").click()
    told.append(part("second line", cursor="s=1;i=2", dropped=7))
    page.get_by_text("Paused: 2 lines wait").wait_for()
    assert log.get_by_text("second line").count() == 0
    page.get_by_role("button", name="Pause").click()
    log.get_by_text("second line").wait_for()
    log.get_by_text("7 lines were left out").wait_for()
    hide(page, hidden=True)
    until(lambda: site.world.listening == 0)
    told[:] = [part("third line", cursor="s=1;i=3")]
    hide(page, hidden=False)
    log.get_by_text("third line").wait_for()
    assert log.get_by_text("first line").count() == 1
    again = site.world.opened[-1]
    assert (again["after"], again["lines"]) == ("s=1;i=2", 0)
    assert page.evaluate("window.pwned") is None
    assert site.complaints == []


def test_a_container_s_logs_are_live_and_a_search_stands_still(
    site: Site, context: BrowserContext
) -> None:
    def written(
        *texts: str, at: float, dropped: int = 0, stream: str = "stdout"
    ) -> dict[str, Any]:
        lines = [
            {
                "container": "shop-web-1",
                "stream": stream,
                "at": "2026-11-24T10:00:00Z",
                "text": one,
            }
            for one in texts
        ]
        return {"lines": lines, "cursor": {"shop-web-1": at}, "dropped": dropped}

    told = site.world.told.setdefault("container.logs", [])
    told.append(written("first line", HOSTILE, at=7.5))
    page = site.open(context)
    page.set_default_timeout(WAIT_SECONDS * 1000)
    page.goto(f"{site.url}/nodes/web-1/containers/docker/shop-web-1")
    log = page.get_by_role("log")
    log.get_by_text("first line").wait_for()
    assert log.get_by_text("connection reset").count() == 0
    page.get_by_role("button", name="Pause the log").click()
    told.append(written("second line", at=8.25, dropped=7, stream="stderr"))
    page.get_by_text("Paused: 2 lines wait").wait_for()
    assert log.get_by_text("second line").count() == 0
    page.get_by_role("button", name="Pause the log").click()
    log.get_by_text("13:00:00 stderr: second line").wait_for()
    log.get_by_text("7 lines were left out").wait_for()
    hide(page, hidden=True)
    until(lambda: site.world.listening == 0)
    told[:] = [written("third line", at=9)]
    hide(page, hidden=False)
    log.get_by_text("third line").wait_for()
    again = site.world.opened[-1]
    assert (again["after"], again["lines"]) == ({"shop-web-1": 8.25}, 0)
    page.get_by_role("searchbox", name="Text in the line").fill("reset")
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_text("connection reset by peer").first.wait_for()
    assert log.count() == 0
    page.get_by_role("link", name="Follow live").click()
    log.wait_for()
    assert page.evaluate("window.pwned") is None
    assert site.complaints == []


def test_a_session_that_ends_leads_to_the_sign_in(site: Site, context: BrowserContext) -> None:
    page = site.open(context)
    page.set_default_timeout(WAIT_SECONDS * 1000)
    page.goto(f"{site.url}/nodes/web-1/processes")
    page.locator("[data-fresh]").get_by_text("Live").wait_for()
    site.world.ended_sessions.add("t")
    page.wait_for_url("**/sign-in?next=/nodes/web-1/processes")
    until(lambda: site.world.listening == 0)


def test_a_node_that_does_not_answer_is_told_and_asked_again(
    site: Site, context: BrowserContext
) -> None:
    page = site.open(context)
    page.set_default_timeout(WAIT_SECONDS * 1000)
    page.goto(f"{site.url}/nodes/web-1/processes")
    badge = page.locator("[data-fresh]")
    badge.get_by_text("Live").wait_for()
    hide(page, hidden=True)
    until(lambda: site.world.listening == 0)
    site.world.mode = "failing"
    hide(page, hidden=False)
    badge.get_by_text("web-1 does not answer").wait_for()
    site.world.mode = "full"
    badge.get_by_text("Live").wait_for()
