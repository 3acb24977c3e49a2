"""The panel in a real Chromium, over fakes."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)
from tests.panel.fakes import World, services
from tests.panel.webapp import make_app
from typing_extensions import override
from werkzeug.serving import WSGIRequestHandler, make_server

from narthex_exporter.contract.wire import RunState
from narthex_panel.live import Live, Shared

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 8000
PAGES = (
    "/",
    "/add-node",
    "/nodes/web-1/overview",
    "/nodes/web-1/processes",
    "/nodes/web-1/processes?view=tree&user=root",
    "/nodes/web-1/processes/4242?environment=1",
    "/nodes/web-1/services",
    "/nodes/web-1/services?type=timer",
    "/nodes/web-1/services/nginx.service",
    "/nodes/web-1/containers",
    "/nodes/web-1/containers/docker/shop-web-1",
    "/nodes/web-1/containers/images",
    "/nodes/web-1/containers/volumes",
    "/nodes/web-1/containers/networks",
    "/nodes/web-1/containers/compose",
    "/nodes/web-1/compose/docker/shop",
    "/nodes/web-1/actions/container.run",
    "/nodes/web-1/actions/service.edit-drop-in?unit=nginx.service&fixed=unit&name=limits&fixed=name",
    "/nodes/web-1/terminal/web",
    "/nodes/web-1/logs",
    "/nodes/web-1/alerts",
    "/nodes/web-1/runs",
    "/nodes/web-1/actions/process.renice?pid=4242&start_ticks=424200&fixed=pid",
    "/alerts",
    "/alerts/history",
    "/logs?q=timed.*out&regex=1",
    "/runs/0190-b",
    "/runs/0190-d",
    "/runs/0190-f",
    "/approvals",
    "/approvals/0190-p",
    "/nodes/web-1/policy",
    "/audit",
    "/settings",
    "/password",
)
HOSTILE = (
    '"><img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'
    "<svg onload=window.pwned=1></svg></td></tr></table><iframe srcdoc='<script>top.pwned=1"
    "</script>'></iframe>\x1b]8;;javascript:pwned=1\x07x"
)


class QuietHandler(WSGIRequestHandler):
    @override
    def log(self, type: str, message: str, *args: object) -> None:
        """Keep the test's output for the test."""


@dataclass
class Site:
    """The panel being served, and what the browser complained about."""

    url: str
    world: World
    complaints: list[str] = field(default_factory=list)

    def open(self, context: BrowserContext, *, signed_in: bool = True) -> Page:
        if signed_in:
            url = self.url.replace("http:", "https:")
            context.add_cookies([{"name": "__Host-sid", "value": "t", "url": url, "secure": True}])
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", self.heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)


@pytest.fixture
def site() -> Iterator[Site]:
    world = World()
    # Short lives, so that no stream outlasts its test.
    live = Live(shared=Shared(interval_seconds=0.3), lifetime_seconds=20.0)
    app = make_app(services(world), live=live)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Site(f"http://127.0.0.1:{server.server_port}", world)
    server.shutdown()
    thread.join()
    server.server_close()


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


def test_a_person_signs_in_stops_a_process_and_sees_how_it_ended(
    site: Site, context: BrowserContext
) -> None:
    page = site.open(context, signed_in=False)
    page.goto(f"{site.url}/sign-in?next=/nodes/web-1/processes")
    page.get_by_label("User name").fill("anna")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Sign in").click()
    page.locator('tr[data-row="4242-424200"]').get_by_text("Stop").click()
    page.get_by_role("heading", name="Signal a process").wait_for()
    page.get_by_label("Signal", exact=True).select_option("KILL")
    page.locator('input[name="signal"][value="KILL"]').wait_for(state="attached")
    page.get_by_label("Reason").fill("it hangs")
    page.get_by_role("dialog").get_by_role("button", name="Signal a process").click()
    page.locator("dialog.is-drawer .run-head").get_by_text("Running").wait_for()
    (run_id,) = site.world.runs
    done = {"state": RunState.SUCCEEDED, "after": {"alive": False}}
    site.world.runs[run_id] = site.world.runs[run_id].model_copy(update=done)
    page.locator(".run-head").get_by_text("Succeeded").wait_for()
    page.get_by_role("link", name="Open as a page").click()
    page.reload()
    page.locator(".run-head").get_by_text("Succeeded").wait_for()
    assert site.world.submitted[0]["reason"] == "it hangs"
    assert site.complaints == []


def test_the_fleet_changes_in_place_and_holds_still_under_the_pointer(
    site: Site, context: BrowserContext
) -> None:
    page = site.open(context)
    page.goto(f"{site.url}/")
    page.get_by_text("Live", exact=True).wait_for()
    page.get_by_role("button", name="CPU").click()
    rows = page.locator("tr[data-row] .node-name")
    before = rows.all_inner_texts()
    assert before[0] == "web-2"
    assert before[-2:] == ["batch-fra-07", "edge-helsinki"]
    page.locator('tr[data-row="0000000000000003"]').hover()
    site.world.cpu = 0.05
    page.locator('tr[data-row="0000000000000001"]').get_by_text("39%").wait_for()
    assert rows.all_inner_texts() == before
    page.mouse.move(0, 0)
    page.get_by_placeholder("Filter nodes").fill("web")
    page.wait_for_url("**/?sort=cpu&dir=desc&q=web")
    page.reload()
    expect(page.locator("tr[data-row]:not([hidden])")).to_have_count(2)
    assert site.complaints == []


def test_a_lost_operator_is_told_and_found_again(site: Site, context: BrowserContext) -> None:
    page = site.open(context)
    page.route("**/live/fleet", lambda route: route.abort())
    page.goto(f"{site.url}/")
    page.get_by_text("Reconnecting since").wait_for()
    page.unroute("**/live/fleet")
    page.get_by_text("Live", exact=True).wait_for()


def test_the_first_node_appears_on_an_empty_page(site: Site, context: BrowserContext) -> None:
    site.world.mode = "empty"
    page = site.open(context)
    page.goto(f"{site.url}/")
    page.get_by_text("No node yet").wait_for()
    site.world.mode = "full"
    page.locator('tr[data-row="0000000000000001"]').wait_for()
    assert site.complaints == []


def test_a_session_that_ended_leads_to_the_sign_in(site: Site, context: BrowserContext) -> None:
    page = site.open(context)
    page.goto(f"{site.url}/nodes/web-1/services")
    site.world.ended_sessions.add("t")
    page.locator('tr[data-row="nginx.service"]').get_by_text("Restart").click()
    page.wait_for_url("**/sign-in?next=/nodes/web-1/services")


@pytest.mark.parametrize(("language", "theme"), [("en-GB", "light"), ("ru-RU", "dark")])
def test_no_page_complains_or_scrolls_sideways_on_a_phone(
    site: Site, browser: Browser, language: str, theme: str
) -> None:
    context = browser.new_context(
        locale=language,
        color_scheme="dark" if theme == "dark" else "light",
        viewport={"width": 390, "height": 844},
        has_touch=True,
    )
    page = site.open(context)
    for path in PAGES:
        page.goto(site.url + path)
        assert page.evaluate("document.documentElement.dataset.bsTheme") == theme
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        bad = page.evaluate(
            """[...document.querySelectorAll("[pattern]")].map((input) => input.pattern)
            .filter((pattern) => { try { new RegExp(pattern, "v"); } catch { return true; } })"""
        )
        assert bad == [], path
        small = page.evaluate(
            """[...document.querySelectorAll("main .btn, .side-nav a")].filter((one) => {
              const box = one.getBoundingClientRect();
              return box.height > 0 && box.height < 44;
            }).map((one) => one.outerHTML)"""
        )
        assert small == [], path
    context.close()
    assert site.complaints == []


def test_hostile_text_runs_nowhere(site: Site, context: BrowserContext) -> None:
    site.world.text = HOSTILE
    page = site.open(context)
    for path in PAGES:
        page.goto(site.url + path)
        page.wait_for_timeout(50)
        assert page.evaluate("window.pwned") is None, path
    page.goto(f"{site.url}/")
    site.world.cpu = 0.05
    page.locator('tr[data-row="0000000000000001"]').get_by_text("39%").wait_for()
    assert page.evaluate("window.pwned") is None
    assert page.locator("iframe").count() == 0
    assert site.complaints == []


def test_charts_are_drawn_and_keep_the_range(site: Site, context: BrowserContext) -> None:
    page = site.open(context)
    page.goto(f"{site.url}/nodes/web-1/overview")
    page.locator(".uplot").nth(4).wait_for()
    page.get_by_role("link", name="6 hours").click()
    page.wait_for_url("**/overview?minutes=360")
    page.locator(".uplot").nth(4).wait_for()
    site.world.mode = "failing"
    page.reload()
    page.get_by_text("Prometheus does not answer", exact=True).first.wait_for()
    assert site.complaints == []


def phone(browser: Browser) -> BrowserContext:
    return browser.new_context(
        locale="en-GB", viewport={"width": 390, "height": 844}, has_touch=True
    )


def test_a_long_command_leaves_room_for_its_buttons_on_a_phone(
    site: Site, browser: Browser
) -> None:
    site.world.text = "/usr/bin/java -Dsome.option=value " * 15
    context = phone(browser)
    page = site.open(context)
    page.goto(f"{site.url}/nodes/web-1/processes")
    row = page.locator('tr[data-row="4242-424200"]')
    command = row.locator(".command")
    height = "(one) => one.getBoundingClientRect().height"
    line = command.evaluate("(one) => parseFloat(getComputedStyle(one).lineHeight)")
    assert command.evaluate(height) <= 2 * line + 1
    assert row.evaluate(height) < 500
    command.focus()
    assert command.evaluate(height) > 4 * line
    assert command.evaluate("(one) => one.scrollHeight <= one.clientHeight + 1")
    context.close()
    assert site.complaints == []


@pytest.mark.parametrize("width", [390, 1440])
def test_a_very_long_log_line_is_folded_until_asked_for(
    site: Site, context: BrowserContext, width: int
) -> None:
    page = site.open(context)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{site.url}/logs")
    page.locator(".log-lines.is-clamped").wait_for()
    assert page.locator(".log-toggle").count() == 0
    site.world.text = "one two three " * 280
    page.reload()
    text = page.locator(".log-text").first
    button = page.get_by_role("button", name="Whole line").first
    button.wait_for()
    size = "(one) => one.clientHeight / parseFloat(getComputedStyle(one).lineHeight)"
    assert 5.9 <= text.evaluate(size) <= 6.1
    assert button.get_attribute("aria-expanded") == "false"
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert text.evaluate(size) > 12
    assert text.evaluate("(one) => one.scrollHeight <= one.clientHeight + 1")
    button.press("Space")
    assert 5.9 <= text.evaluate(size) <= 6.1
    shown = page.locator(".log-text").count()
    page.get_by_role("link", name="Load older lines").click()
    page.locator(".log-text").nth(shown).wait_for()
    page.locator(".log-toggle").nth(shown).wait_for()
    assert site.complaints == []


def test_selected_nodes_stay_selected_while_rows_are_refreshed(
    site: Site, context: BrowserContext
) -> None:
    page = site.open(context)
    page.goto(f"{site.url}/")
    page.get_by_label("Select web-1").check()
    page.get_by_label("Select cache-1").check()
    site.world.cpu += 0.02
    page.mouse.move(0, 0)
    expect(page.locator("[data-text*=cache-1]")).to_contain_text("6%")
    assert page.locator("[data-select]:checked").count() == 2
    page.get_by_role("button", name="Run on selected").click()
    page.wait_for_selector("#fleet-action")
    sent = page.locator("#ask input[name=node]").evaluate_all("all => all.map((one) => one.value)")
    assert sorted(sent) == [f"{number:016x}" for number in (1, 5)]
    page.select_option("#fleet-action", "service.restart")
    page.locator("#field-unit").fill("nginx.service")
    page.get_by_role("button", name="Show what will be done").click()
    page.wait_for_selector(".plan-group")
    assert site.complaints == []
