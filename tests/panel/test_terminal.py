"""A terminal's page in a real Chromium: bytes, paste, keys, what ends it, and its policy."""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, BrowserContext, Page
from tests.panel.fakes import World, services
from tests.panel.test_browser import Site
from tests.panel.test_stream import WAIT_SECONDS, browser, context, until
from tests.panel.webapp import make_app

from narthex_exporter.transport.server import Limits, Listener, Server, listen_tcp
from narthex_operator.services.access import Role

__all__ = ["browser", "context"]  # fixtures
PATH = "/nodes/web-1/terminal/web"
PASTE = """(text) => {
  const data = new DataTransfer();
  data.setData("text/plain", text);
  const how = {clipboardData: data, bubbles: true, cancelable: true};
  const input = document.querySelector(".xterm-helper-textarea");
  input.dispatchEvent(new ClipboardEvent("paste", how));
}"""


@dataclass
class Desk:
    """A page with a terminal, and the other end of it."""

    site: Site
    page: Page

    @property
    def world(self) -> World:
        return self.site.world

    @property
    def typed(self) -> bytes:
        return bytes(self.world.typed)

    def open(self, *, command: str = "/bin/sh") -> None:
        page = self.page
        page.goto(self.site.url + PATH)
        page.get_by_label("Shell or command").fill(command)
        page.get_by_label("Reason").fill("it hangs")
        page.get_by_role("button", name="Open a terminal").click()
        self.is_connected()

    def is_connected(self) -> None:
        self.page.locator('[data-status][data-state="live"]').wait_for()

    def write(self, data: bytes) -> None:
        self.world.screen.append(data)

    def shows(self, text: str) -> None:
        self.page.locator(".xterm-rows").get_by_text(text).first.wait_for()

    def ended(self) -> str:
        self.page.locator("[data-over-why]").wait_for()
        return self.page.locator("[data-over-why]").inner_text()

    def paste(self, text: str) -> None:
        self.page.evaluate(PASTE, text)


@pytest.fixture
def site() -> Iterator[Site]:
    world = World()
    sock = listen_tcp("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    with Server(make_app(services(world), origin=url), [Listener(sock=sock)], Limits()):
        yield Site(url, world)


@pytest.fixture
def desk(site: Site, context: BrowserContext) -> Iterator[Desk]:
    page = site.open(context)
    page.set_default_timeout(WAIT_SECONDS * 1000)
    yield Desk(site, page)
    assert site.complaints == []


def test_the_reason_and_the_size_are_sent_and_bytes_go_both_ways_unchanged(desk: Desk) -> None:
    desk.open(command="  busybox  sh -l ")
    (opened,) = desk.world.opened
    assert (opened["container"], opened["command"]) == ("web", ["busybox", "sh", "-l"])
    assert opened["reason"] == "it hangs"
    assert opened["columns"] > 100
    assert opened["rows"] > 20
    until(lambda: desk.world.sizes)
    # Cut inside a character, and not UTF-8 at all.
    for piece in (b"\xd0", b"\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 \xff\xfe\x80 end"):
        desk.write(piece)
    desk.shows("Привет")
    desk.shows("end")
    desk.page.keyboard.type("жé中\t")
    desk.page.keyboard.press("Enter")
    desk.page.keyboard.press("Control+c")
    until(lambda: desk.typed == "жé中\t\r\x03".encode())
    # The old mouse reports are bytes above 0x7f, and no text.
    desk.write(b"\x1b[?1000hmouse")
    desk.shows("mouse")
    box = desk.page.locator(".xterm-screen").bounding_box()
    assert box is not None
    desk.page.mouse.click(box["x"] + box["width"] - 12, box["y"] + 8)
    until(lambda: b"\x1b[M " in desk.typed)
    report = desk.typed.partition(b"\x1b[M")[2]
    assert report[1] > 0x7F


def test_a_large_paste_arrives_whole_in_small_messages(desk: Desk) -> None:
    desk.open()
    text = "0123456789" * 30_000
    desk.paste(text)
    until(lambda: len(desk.typed) >= len(text))
    assert desk.typed == text.encode()


def test_more_than_one_line_is_pasted_only_when_asked_and_never_as_keys(desk: Desk) -> None:
    desk.open()
    desk.write(b"\x1b[?2004hready")
    desk.shows("ready")
    desk.paste("one\ntwo\x1b[201~rm\x03\n")
    dialog = desk.page.get_by_role("dialog", name="Paste more than one line?")
    dialog.get_by_text("Lines: 2.").wait_for()
    assert dialog.locator("pre").inner_text() == "one\ntwo[201~rm\n"
    dialog.get_by_role("button", name="Cancel").click()
    desk.page.keyboard.type("x")
    until(lambda: desk.typed == b"x")
    desk.paste("one\r\ntwo\x1b[201~\n")
    dialog.get_by_role("button", name="Paste").click()
    until(lambda: desk.typed == b"x\x1b[200~one\rtwo[201~\r\x1b[201~")
    desk.paste("a single line\x1b")
    until(lambda: desk.typed.endswith(b"\x1b[200~a single line\x1b[201~"))
    desk.paste("runs at once\n")
    dialog.get_by_text("Lines: 1.").wait_for()
    dialog.press("Escape")
    assert b"runs at once" not in desk.typed


def test_what_is_selected_is_copied_and_buttons_paste(desk: Desk, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    desk.open()
    desk.write(b"pepper")
    desk.shows("pepper")
    desk.page.get_by_role("button", name="Copy").click()
    desk.page.get_by_text("Nothing is selected.").wait_for()
    box = desk.page.locator(".xterm-screen").bounding_box()
    assert box is not None
    desk.page.mouse.dblclick(box["x"] + 12, box["y"] + 6)
    desk.page.keyboard.press("Control+Shift+KeyC")
    desk.page.get_by_text("Copied").wait_for()
    assert desk.page.evaluate("navigator.clipboard.readText()") == "pepper"
    desk.page.get_by_role("button", name="Paste").click()
    until(lambda: desk.typed == b"pepper")
    desk.page.keyboard.press("Control+Shift+KeyV")
    until(lambda: desk.typed == b"pepper" * 2)


def test_output_reaches_neither_clipboard_nor_title_nor_is_it_answered(
    desk: Desk, context: BrowserContext
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    desk.open()
    desk.page.evaluate("navigator.clipboard.writeText('mine')")
    title = desk.page.title()
    desk.write(
        b"\x1b]52;c;cHduZWQ=\x07\x1b]52;c;?\x07\x1b]0;rm -rf /\x07\x1b]2;rm -rf /\x07"
        b'\x1b[21t\x1b[20t\x1b[18t\x1b[8;1;1t\x1bP$qm\x1b\\\x1bP$q"p\x1b\\'
        b"\x1b]8;;javascript:window.pwned=1\x07link\x1b]8;;\x07"
        b"<img src=x onerror=window.pwned=1>"
    )
    desk.shows("link")
    box = desk.page.locator(".xterm-rows").get_by_text("link").first.bounding_box()
    assert box is not None
    desk.page.mouse.click(box["x"] + 8, box["y"] + 6)
    desk.write(b"\x1b[c")  # to this an answer is due: what came before has been read
    until(lambda: desk.typed)
    assert re.fullmatch(rb"\x1b\[\?[\d;]+c", desk.typed)
    assert desk.page.title() == title
    assert desk.page.evaluate("navigator.clipboard.readText()") == "mine"
    assert desk.page.evaluate("window.pwned") is None
    assert len(desk.page.context.pages) == 1


def test_8_xterm_is_styled_without_unsafe_inline(desk: Desk) -> None:
    desk.page.add_init_script(
        """window.broken = []; document.addEventListener("securitypolicyviolation",
        (event) => window.broken.push(`${event.violatedDirective} ${event.sourceFile}`));"""
    )
    with desk.page.expect_response(f"**{PATH}") as found:
        desk.open()
    policy = found.value.headers["content-security-policy"]
    assert "unsafe-inline" not in policy
    (nonce,) = re.findall(r"style-src 'self' 'nonce-([\w-]{20,})';", policy)
    assert desk.page.request.get(desk.site.url + PATH).headers["content-security-policy"] != policy
    desk.write(b"\x1b[38;2;255;90;90m\x1b[48;2;0;0;90mtrue\x1b[0m \x1b[32mgreen\x1b[0m")
    desk.shows("true")
    colour = "(one) => getComputedStyle(one).color"
    ground = "(one) => getComputedStyle(one).backgroundColor"
    true = desk.page.locator(".xterm-rows span", has_text="true")
    assert true.evaluate(colour) == "rgb(255, 90, 90)"
    assert true.evaluate(ground) == "rgb(0, 0, 90)"
    green = desk.page.locator(".xterm-rows span", has_text="green")
    before = green.evaluate(colour)
    desk.page.evaluate("document.documentElement.dataset.bsTheme = 'dark'")
    until(lambda: green.evaluate(colour) != before)
    assert desk.page.evaluate("window.broken") == []
    # The nonce lets nothing in that does not know it.
    desk.page.evaluate(
        """(text) => { const made = new DOMParser().parseFromString(text, "text/html");
        document.body.append(document.importNode(made.querySelector("style"), true)); }""",
        "<style>h1 { color: rgb(1, 2, 3) !important }</style>",
    )
    assert desk.page.locator("h1").evaluate(colour) != "rgb(1, 2, 3)"
    assert nonce
    assert [one for one in desk.site.complaints if "inline style" not in one] == []
    desk.site.complaints.clear()


def test_no_other_page_has_a_nonce(client: FlaskClient) -> None:
    for path in ("/", "/nodes/web-1/overview", "/nodes/web-1/terminal/-x"):
        assert "nonce" not in client.get(path).headers["Content-Security-Policy"]


def test_the_keyboard_can_leave(desk: Desk) -> None:
    desk.open()
    focused = "document.activeElement.className || document.activeElement.outerHTML"
    desk.page.keyboard.press("Tab")
    until(lambda: desk.typed == b"\t")
    assert "xterm-helper-textarea" in desk.page.evaluate(focused)
    desk.page.keyboard.press("Control+Shift+Period")
    assert desk.page.evaluate("document.activeElement.hasAttribute('data-leave')")
    desk.page.keyboard.press("Tab")
    assert desk.page.evaluate("document.activeElement.hasAttribute('data-copy-selection')")
    assert desk.typed == b"\t"


def test_the_screen_follows_the_window(desk: Desk) -> None:
    desk.open()
    until(lambda: desk.world.sizes)
    wide = desk.world.sizes[-1]
    desk.page.set_viewport_size({"width": 700, "height": 900})
    until(lambda: desk.world.sizes[-1]["columns"] < wide["columns"] - 20)
    assert set(desk.world.sizes[-1]) == {"columns", "rows"}


def test_why_it_ended_is_told_and_a_new_session_says_that_it_is_one(desk: Desk) -> None:
    desk.open()
    desk.write(b"old output")
    desk.shows("old output")
    desk.world.hang_up = "the command has ended"
    assert desk.ended() == "Ended: the command has ended"
    desk.page.get_by_text("starts a new session: nothing is carried over").wait_for()
    desk.shows("old output")
    desk.page.keyboard.type("x")  # goes nowhere
    desk.world.hang_up, desk.world.screen[:] = "", [b"new output"]
    desk.page.get_by_role("button", name="Open a new session").click()
    desk.is_connected()
    desk.shows("new output")
    assert desk.page.locator(".xterm-rows").get_by_text("old output").count() == 0
    assert (len(desk.world.opened), desk.typed) == (2, b"")
    desk.page.get_by_role("button", name="End").click()
    assert desk.ended() == "Ended: you ended it"
    until(lambda: desk.world.listening == 0)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("nothing was typed for too long", "Ended: nothing was typed for too long"),
        ("<b>x</b>\u202e\x1b[1m words", "Ended: <b>x</b> [1m words"),
    ],
)
def test_a_node_s_reasons_stay_words(desk: Desk, said: str, told: str) -> None:
    desk.open()
    desk.world.hang_up = said
    assert desk.ended() == told


def test_32_a_session_that_ends_ends_its_terminal(desk: Desk) -> None:
    desk.open()
    desk.world.ended_sessions.add("t")
    began = time.monotonic()
    assert desk.ended() == "Ended: your session has ended: sign in again"
    assert time.monotonic() - began < 3
    until(lambda: desk.world.listening == 0)
    desk.page.get_by_role("button", name="Open a new session").click()
    desk.page.wait_for_url(f"**/sign-in?next={PATH}")
    desk.site.complaints[:] = [one for one in desk.site.complaints if "401" not in one]


def test_a_page_that_is_left_ends_its_terminal(desk: Desk) -> None:
    desk.open()
    desk.page.close(run_before_unload=False)
    until(lambda: desk.world.listening == 0)


def test_what_is_refused_is_told_and_can_be_tried_again(desk: Desk) -> None:
    desk.page.goto(desk.site.url + PATH)
    desk.page.get_by_label("Reason").fill("it hangs")
    desk.world.forbidden["container.exec"] = "the node's policy does not allow it"
    desk.page.get_by_role("button", name="Open a terminal").click()
    desk.page.get_by_text("the node's policy does not allow it · ask the node's owner").wait_for()
    desk.world.forbidden.clear()
    desk.page.get_by_label("Shell or command").fill("a " * 17)
    desk.page.get_by_role("button", name="Open a terminal").click()
    desk.page.get_by_text("at most 16 words").wait_for()
    desk.page.get_by_label("Shell or command").fill("/bin/sh")
    desk.world.mode = "failing"
    desk.page.get_by_role("button", name="Open a terminal").click()
    assert desk.ended() == "Ended: web-1 does not answer · check the node"
    desk.world.mode = "full"
    desk.page.get_by_role("button", name="Open a new session").click()
    desk.is_connected()
    told = [one for one in desk.site.complaints if "409" not in one and "422" not in one]
    desk.site.complaints[:] = told


def test_a_flood_does_not_stop_the_page(desk: Desk) -> None:
    desk.open()
    line = b"".join(b"\x1b[3%dm%06d abcdefghij\r\n" % (n % 8, n) for n in range(2500))[:60_000]
    for _ in range(400):
        desk.write(line)
    desk.write(b"\x1b[0m\r\nthe very end")
    desk.page.keyboard.press("Control+c")
    until(lambda: desk.typed == b"\x03")
    desk.shows("the very end")


def test_what_comes_faster_than_it_is_drawn_is_left_out_and_that_is_said(desk: Desk) -> None:
    desk.page.goto(desk.site.url + PATH)
    shown = desk.page.evaluate(
        """async () => {
          const main = document.querySelector('script[src*="js/terminal.js"]').src;
          const { Screen } = await import(main.replace("terminal.js", "terminal_screen.js"));
          const host = document.createElement("div");
          document.body.append(host);
          const screen = new Screen(host, { gap: (bytes) => `${bytes} left out` });
          screen.open();
          // It draws nothing, and is cut inside a sequence.
          const cut = new TextEncoder().encode("\\x1b[31m".repeat(13000) + "\\x1b[31");
          for (let at = 0; at < 200; at++) screen.take(cut);
          const most = screen.size;
          screen.take(new TextEncoder().encode("\\r\\n\\x1b[0mthe very end"));
          while (screen.size || screen.busy) await new Promise((go) => setTimeout(go, 20));
          const buffer = screen.term.buffer.active;
          const lines = [];
          for (let at = 0; at < buffer.length; at++) {
            lines.push(buffer.getLine(at).translateToString(true));
          }
          const said = lines.filter((line) => line);
          return { most, said };
        }"""
    )
    assert shown["most"] <= 4 << 20
    gap, last = shown["said"]
    left = int(gap.removeprefix("[").removesuffix(" left out]"))
    assert 200 * 65_004 - (4 << 20) - (1 << 20) < left < 200 * 65_004 - (3 << 20)
    assert last == "the very end"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_has_the_keys_that_its_keyboard_lacks(
    site: Site, browser: Browser, theme: Any
) -> None:
    context = browser.new_context(
        locale="ru-RU",
        color_scheme=theme,
        viewport={"width": 390, "height": 844},
        has_touch=True,
    )
    page = site.open(context)
    page.goto(site.url + PATH)
    page.locator("#terminal-reason").fill("it hangs")
    page.locator("[data-open]").click()
    desk = Desk(site, page)
    desk.is_connected()
    until(lambda: site.world.sizes)
    assert 30 < site.world.sizes[-1]["columns"] < 60
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    small = page.evaluate(
        """[...document.querySelectorAll("main .btn")].filter((one) => {
          const box = one.getBoundingClientRect();
          return box.height > 0 && (box.height < 44 || box.width < 44);
        }).map((one) => one.outerHTML)"""
    )
    assert small == []
    nav = page.locator(".side-nav").bounding_box()
    keys = page.locator("[data-keys]").bounding_box()
    assert nav is not None
    assert keys is not None
    assert keys["y"] + keys["height"] <= nav["y"] + 1
    for key in ("Escape", "Tab", "Up", "|"):
        page.locator(f'[data-key="{key}"]').tap()
    assert page.evaluate("document.activeElement.className") == "xterm-helper-textarea"
    until(lambda: desk.typed == b"\x1b\t\x1b[A|")
    desk.write(b"\x1b[?1happlication")
    desk.shows("application")
    page.locator('[data-key="Up"]').tap()
    page.locator('[data-key="Control"]').tap()
    page.keyboard.type("cc")
    until(lambda: desk.typed == b"\x1b\t\x1b[A|\x1bOA\x03c")
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/terminal-390-{theme}.png")
    context.close()
    until(lambda: site.world.listening == 0)
    assert site.complaints == []


@pytest.mark.parametrize("role", list(Role))
def test_who_may_not_is_told_what_is_missing(
    client: FlaskClient, world: World, role: Role
) -> None:
    world.role = role
    reply = client.get(PATH)
    if not world.actor.may("node:read"):
        assert reply.status_code == 403
        return
    assert reply.status_code == 200
    can = role in {Role.ADMIN, Role.OPERATOR}
    assert ("js/terminal.js" in reply.text) is can
    assert ("You need the permission action:container.exec" in reply.text) is not can


def test_a_node_that_withholds_it_says_why(client: FlaskClient, world: World) -> None:
    world.forbidden["container.exec"] = "this node's policy <b>forbids</b> it"
    text = client.get(PATH).text
    assert "this node&#39;s policy &lt;b&gt;forbids&lt;/b&gt; it" in text
    assert "data-terminal" not in text
    world.actor_off = True
    assert "systemctl enable --now narthex-actor.socket" in client.get(PATH).text


@pytest.mark.parametrize("name", ["-x", ".hidden", "a b", "%0a", "x" * 129, "%3Cscript%3E"])
def test_what_is_no_container_s_name_is_not_found(client: FlaskClient, name: str) -> None:
    assert client.get(f"/nodes/web-1/terminal/{name}").status_code == 404
