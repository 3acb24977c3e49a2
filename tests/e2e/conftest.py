"""Start the whole product as a person would, once for all journeys, and see that nothing stays."""

import base64
import hashlib
import socket
import ssl
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from rig import Product, make_product, processes_of

CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """Two nodes on this machine, started by script/up; stopped, and looked for, at the end."""
    found = make_product(tmp_path_factory.mktemp("product"))
    before = time.monotonic()
    done = found.script("up", "--detach", "--nodes", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    found.started_in_seconds = time.monotonic() - before
    try:
        yield found
    finally:
        stopped = found.script("down")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert not processes_of(found.home)
    assert not (found.home / "run.json").exists()


def panel_key(product: Product) -> bytes:
    """Fetch the panel's public key over a connection that the installation's CA vouches for."""
    url = urlsplit(product.run.panel.url)
    context = ssl.create_default_context(cafile=product.run.panel.ca_file)
    with (
        socket.create_connection((url.hostname, url.port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=url.hostname) as sock,
    ):
        der = sock.getpeercert(binary_form=True)
    assert der is not None
    key = x509.load_der_x509_certificate(der).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="session")
def browser(product: Product) -> Iterator[Browser]:
    """Run a real Chromium that trusts exactly the key that the panel proves to have."""
    pin = base64.b64encode(hashlib.sha256(panel_key(product)).digest()).decode()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                f"--ignore-certificate-errors-spki-list={pin}",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def context(browser: Browser, product: Product) -> Iterator[BrowserContext]:
    """One person's browser: signed in once, kept for every journey."""
    context = browser.new_context(
        base_url=product.run.panel.url, locale="en-GB", viewport={"width": 1440, "height": 900}
    )
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """Open a tab; a script error or a refused script in it fails the test."""
    page = context.new_page()
    amiss: list[str] = []
    page.on("pageerror", lambda error: amiss.append(str(error)))
    page.on("console", lambda said: amiss.append(said.text) if said.type == "error" else None)
    yield page
    page.close()
    assert not amiss
