"""A terminal in a real container, from a real browser: operator, exporter, actor, Docker."""

import base64
import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Page, sync_playwright
from tests.lab.test_containers import Docker
from tests.lab.test_terminals import POLICY, docker
from tests.operator.live.conftest import ADMIN, Browser, People, known, operator, people
from tests.operator.live.test_live import closing
from tests.panel.test_browser import CHROMIUM, FLAGS
from wsproto.events import BytesMessage, TextMessage

from narthex_operator.services.views import AuditRow
from realnode import RealNode
from realoperator import Operator

__all__ = ["docker", "known", "operator", "people"]  # fixtures
WAIT_SECONDS = 20.0


@pytest.fixture(scope="module")
def node(
    docker: Docker, operator: Operator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealNode]:
    folder = tmp_path_factory.mktemp("node") / "node"
    signer = operator.parts.core.signer
    one = RealNode(folder, signer, policy=POLICY, docker_socket=docker.socket)
    with one.front(), one.actor():
        one.enter(operator.parts.core.database)
        yield one


@dataclass
class Seen:
    """What both audits say, and what the container runs."""

    docker: Docker
    operator: Operator
    node: RealNode

    def ledger(self, event: str) -> list[AuditRow]:
        page = self.operator.parts.services.audit.list(ADMIN, event=event)
        return list(page.rows)

    def node_rows(self, event: str) -> list[dict[str, Any]]:
        lines = (self.node.folder / "actor" / "audit.jsonl").read_text().splitlines()
        return [row for row in map(json.loads, lines) if row["event"] == event]

    def processes(self) -> int:
        return len(self.docker.run("top", "web", "-eo", "pid,args").splitlines()) - 1


@pytest.fixture
def seen(docker: Docker, operator: Operator, node: RealNode) -> Iterator[Seen]:
    one = Seen(docker, operator, node)
    yield one
    until(lambda: one.processes() == 2)  # its init and its sleep


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_terminal_goes_through_the_operator(seen: Seen, people: People) -> None:
    browser = people.new("operator")
    talk = browser.open("container.exec", container="web", columns=101, rows=31)
    talk.send(BytesMessage(data=b"busybox stty size; echo $((6*7)) $(busybox printf '\\377')\n"))
    out = talk.output(b"42 \xff")  # not UTF-8, as it was
    assert b"31 101" in out
    talk.send(TextMessage(data='{"columns": 132, "rows": 50}'))
    time.sleep(0.5)
    talk.send(BytesMessage(data=b"busybox stty size\n"))
    talk.output(b"50 132")
    talk.send(BytesMessage(data=b"exit\n"))
    end, _ = closing(talk)
    assert (end.code, end.reason) == (1000, "the command has ended")
    until(lambda: seen.ledger("terminal.closed"))
    (opened, closed) = seen.ledger("terminal.opened")[0], seen.ledger("terminal.closed")[0]
    assert (opened.resource, opened.reason) == ("container/web", "a test")
    assert closed.details["why"] == "the command has ended"
    row = seen.node_rows("terminal.opened")[-1]
    assert (row["container"], row["reason"], row["sub"]) == ("web", "a test", opened.actor)


def test_no_terminal_opens_without_a_reason(seen: Seen, people: People) -> None:
    asked = {"node": "web-1", "name": "container.exec", "params": {"container": "web"}}
    for reason in ("", "  ", "a\x1b[1mb", "x" * 5000):
        status, problem = people("operator").post({**asked, "reason": reason})
        assert (status, problem["type"]) == (422, "invalid"), problem
    assert people("viewer").post({**asked, "reason": "a test"})[0] == 403


def _disable(browser: Browser) -> None:
    user = browser.accounts.session(browser.token, address="127.0.0.1")[1].user
    browser.accounts.reset_password(ADMIN, name=user.name)


@pytest.mark.parametrize(
    "end", [lambda browser: browser.accounts.sign_out(browser.token), _disable]
)
def test_32_a_right_that_ends_ends_the_terminal_and_what_runs_in_it(
    seen: Seen, people: People, end: Callable[[Browser], None]
) -> None:
    browser = people.new("operator")
    talk = browser.open("container.exec", container="web")
    talk.send(BytesMessage(data=b"trap '' HUP TERM; sleep 911 & echo $((6*7)); wait\n"))
    talk.output(b"42")
    end(browser)
    close, seconds = closing(talk)
    assert (close.code, close.reason) == (1008, "signed-out")
    assert seconds < 2
    began = time.monotonic()
    until(lambda: seen.processes() == 2)
    assert time.monotonic() - began < 10


def _pin(certificate: Path) -> str:
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


@contextlib.contextmanager
def _page(browser: Browser, certificate: Path) -> Iterator[Page]:
    flags = [*FLAGS, f"--ignore-certificate-errors-spki-list={_pin(certificate)}"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        context = chromium.new_context(locale="en-GB")
        cookie = {"name": "__Host-sid", "value": browser.token, "url": browser.origin}
        context.add_cookies([{**cookie, "secure": True}])  # type: ignore[typeddict-item]
        page = context.new_page()
        page.set_default_timeout(WAIT_SECONDS * 1000)
        yield page
        chromium.close()


def test_a_person_works_in_a_container(seen: Seen, people: People, operator: Operator) -> None:
    browser = people.new("operator")
    certificate = operator.config.web.cert_file
    assert certificate is not None
    heard: list[str] = []
    with _page(browser, certificate) as page:
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.goto(f"{browser.origin}/nodes/web-1/terminal/web")
        page.get_by_label("Reason").fill("it hangs")
        page.get_by_role("button", name="Open a terminal").click()
        page.get_by_text("Connected", exact=True).wait_for()
        rows = page.locator(".xterm-rows")
        page.keyboard.type("busybox stty size; echo привет $((6*7))\n")
        rows.get_by_text("привет 42").wait_for()
        wide = rows.inner_text()
        page.set_viewport_size({"width": 800, "height": 600})
        time.sleep(0.6)
        page.keyboard.type("clear; busybox clear; busybox stty size; echo done $((6*8))\n")
        rows.get_by_text("done 48").wait_for()
        assert _columns(rows.inner_text()) < _columns(wide)
        began = time.monotonic()
        page.keyboard.type("busybox seq 100000; echo end $((6*9))\n")
        rows.get_by_text("end 54").wait_for()
        assert time.monotonic() - began < 15
        rows.get_by_text("100000").first.wait_for()
        page.keyboard.type("exit\n")
        page.locator("[data-over-why]").wait_for()
        assert page.locator("[data-over-why]").inner_text() == "Ended: the command has ended"
        page.get_by_role("button", name="Open a new session").click()
        page.get_by_text("Connected", exact=True).wait_for()
        page.keyboard.type("sleep 911\n")
        until(lambda: seen.processes() == 4)
    assert heard == []
    until(lambda: seen.processes() == 2)
    assert [row.reason for row in seen.ledger("terminal.opened")[:2]] == ["it hangs"] * 2


def _columns(shown: str) -> int:
    """Find what ``stty size`` said last."""
    pairs = [line.split() for line in shown.replace("\xa0", " ").splitlines()]
    found = [int(pair[1]) for pair in pairs if len(pair) == 2 and all(map(str.isdigit, pair))]
    return found[-1]
