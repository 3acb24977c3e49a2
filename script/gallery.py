"""Sign in to a running installation and take its pages' screenshots."""

import json
import os
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from narthex_operator.local.runfile import read_run_file

# Charts want something to draw: this many seconds of history.
HISTORY_SECONDS = float(os.environ.get("GALLERY_SECONDS", "240"))


def main(folder: Path) -> None:
    """Take every picture."""
    run = read_run_file(Path(os.environ["NARTHEX_HOME"]) / "run.json")
    first = json.loads(Path(run.panel.credentials_file).read_text())
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(
            base_url=run.panel.url,
            # The pictures are of this machine's own panel, on loopback.
            ignore_https_errors=True,
            viewport={"width": 1440, "height": 900},
            locale="en-GB",
        )
        sign_in(page, first["user"], first["password"])
        time.sleep(HISTORY_SECONDS)
        node = run.nodes[0].name
        for name, path in (
            ("fleet", "/"),
            ("node", f"/nodes/{node}/overview"),
            ("logs", "/logs?range=15m"),
            ("alerts", "/alerts"),
            ("audit", "/audit"),
        ):
            take(page, folder / f"{name}.png", path)
        page.set_viewport_size({"width": 390, "height": 844})
        page.emulate_media(color_scheme="dark")
        take(page, folder / "phone.png", "/")
        browser.close()


def sign_in(page: Page, user: str, password: str) -> None:
    """Sign in for the first time, and choose a password."""
    page.goto("/")
    page.get_by_label("User name").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Password until now").fill(password)
    for label in ("New password", "New password again"):
        page.get_by_label(label, exact=True).fill("a horse that counts to nine")
    page.get_by_role("button", name="Change password").click()
    page.wait_for_load_state()


def take(page: Page, file: Path, path: str) -> None:
    """Take one picture."""
    page.goto(path)
    page.wait_for_timeout(2500)
    page.screenshot(path=file)
    print(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
