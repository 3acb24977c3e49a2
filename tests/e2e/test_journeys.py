"""What a person does, in a real browser, on the whole product, in the order of a first day."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from rig import ROOT, Product, processes_of, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

OWN_PASSWORD = "a horse that counts to nine"


def test_the_product_is_up_and_tools_find_everything(product: Product) -> None:
    run = product.run
    assert (product.home / "run.json").stat().st_mode & 0o777 == 0o600
    assert all(run.pids.model_dump().values())
    assert [bool(node.pids.exporter and node.pids.actor) for node in run.nodes] == [True, True]
    assert product.api("/api/v1/nodes")["items"]
    for name in (run.api_token_file, run.panel.credentials_file, run.scrape.key_file):
        assert Path(name).stat().st_mode & 0o077 == 0


def test_prometheus_found_the_nodes_by_itself(product: Product) -> None:
    rows = product.prometheus('up{job="node"}')
    assert {row["metric"]["node"]: row["value"][1] for row in rows} == {
        node.name: "1" for node in product.run.nodes
    }
    until(
        lambda: product.prometheus("instance:node_cpu_utilisation:rate5m"), what="rules evaluate"
    )


def test_the_first_password_must_be_changed(page: Page, product: Product) -> None:
    first = json.loads(Path(product.run.panel.credentials_file).read_text())
    page.goto("/")
    page.get_by_label("User name").fill(first["user"])
    page.get_by_label("Password").fill(first["password"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Change password")).to_be_visible()
    page.goto("/")
    expect(page.get_by_role("heading", name="Change password")).to_be_visible()
    page.get_by_label("Password until now").fill(first["password"])
    page.get_by_label("New password", exact=True).fill(OWN_PASSWORD)
    page.get_by_label("New password again").fill(OWN_PASSWORD)
    page.get_by_role("button", name="Change password").click()
    page.goto("/")
    expect(page.get_by_role("heading", name="Fleet")).to_be_visible()


def test_the_fleet_shows_every_node_live_and_fresh(page: Page, product: Product) -> None:
    page.goto("/")
    for node in product.run.nodes:
        row = page.get_by_role("row").filter(
            has=page.get_by_role("link", name=node.name, exact=True)
        )
        expect(row).to_contain_text("Up")
        for column in ("CPU", "Memory", "Disk"):
            expect(row.locator(f'[data-label="{column}"]')).to_have_text(re.compile(r"\d+\s?%"))
    seen = page.locator("tr[data-row] .cell-seen time").first
    ages = []
    for _ in range(8):
        at = datetime.fromisoformat(str(seen.get_attribute("datetime")))
        ages.append((datetime.now(tz=UTC) - at).total_seconds())
        page.wait_for_timeout(1000)
    assert len({round(age - index) for index, age in enumerate(ages)}) > 1, "nothing moves"
    assert sorted(ages)[len(ages) // 2] < 5, ages


def test_another_machine_joins_with_one_pasted_line_and_its_actor_is_off(
    page: Page, product: Product, tmp_path: Path
) -> None:
    port = int(product.environment["NARTHEX_PORT_BASE"]) + 13
    page.goto("/")
    page.get_by_role("link", name="Add a node").click()
    page.get_by_label("Name").fill("web-9")
    page.get_by_label("Address").fill(f"127.0.0.1:{port}")
    page.get_by_role("button", name="Make the line").click()
    line = page.locator("#join-command").inner_text()
    assert "/var/lib/narthex" in line
    output = tmp_path / "output"
    with output.open("w") as said:
        machine = subprocess.Popen(
            ["bash", "-c", line.replace("/var/lib/narthex", str(tmp_path / "state"))],
            cwd=ROOT,
            env=product.environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        until(lambda: "fingerprint: " in output.read_text(), seconds=30, what=output.read_text())
        words = re.findall(r"fingerprint: (.*)", output.read_text())[0]
        page.goto("/")
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name="web-9"))
        expect(row).to_contain_text("Waiting for approval")
        expect(row).to_contain_text(words)
        page.once("dialog", lambda dialog: dialog.accept())
        row.get_by_role("button", name="Approve").click()
        page.wait_for_url("**/nodes/web-9/**")
        page.goto("/")
        expect(row).to_contain_text("Up", timeout=30_000)
        expect(row.locator('[data-label="CPU"]')).to_have_text(re.compile(r"\d+\s?%"))
        page.goto("/nodes/web-9/processes")
        expect(page.get_by_text("actor").first).to_be_visible()
        assert page.get_by_role("link", name="Stop").count() == 0
    finally:
        os.killpg(machine.pid, signal.SIGTERM)
        machine.wait(timeout=20)
        until(lambda: not processes_of(tmp_path), what="the machine's exporter has ended")
    product.api("/api/v1/nodes/web-9", method="DELETE")
    until(lambda: not product.prometheus('up{node="web-9"}'), what="it is no longer scraped")


def test_a_node_page_draws_an_hour_from_prometheus(page: Page, product: Product) -> None:
    page.goto(f"/nodes/{product.run.nodes[0].name}/overview")
    expect(page.locator(".uplot").first).to_be_visible()
    assert page.locator(".uplot").count() >= 5
    expect(page.get_by_text("Host name")).to_be_visible()


def test_a_line_that_was_just_logged_is_found(page: Page, product: Product) -> None:
    word = f"needle-{uuid.uuid4().hex}"
    with (product.home / "log" / "e2e.log").open("a") as file:
        file.write(f"level=error msg=lost what={word} <b>bold</b>\n")

    def found() -> bool:
        page.goto(f"/logs?q={word}&range=15m")
        return page.get_by_text(word).count() > 1

    until(found, seconds=30, what="the line is found")
    expect(page.locator(".log-text").first).to_contain_text("<b>bold</b>")
    expect(page.locator(".log-text mark").first).to_have_text(word)


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours with a name of its own, for somebody to stop."""
    process = subprocess.Popen(
        [sys.executable, "-Ic", "import time; time.sleep(300)", "e2e-victim"]
    )
    yield process
    process.kill()
    process.wait()


def test_a_process_is_stopped_through_plan_confirm_run_and_result(
    page: Page, product: Product, victim: subprocess.Popen[bytes]
) -> None:
    node = product.run.nodes[0].name
    page.goto(f"/nodes/{node}/processes")
    page.get_by_placeholder("Filter by command or user").fill("e2e-victim")
    row = page.locator(f'tr[data-row^="{victim.pid}-"]')
    row.get_by_role("link", name="Stop").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("This is what will be done")).to_be_visible()
    expect(dialog.get_by_text(f"kill -s TERM {victim.pid}")).to_be_visible()
    expect(dialog.get_by_text("Disruptive")).to_be_visible()
    assert victim.poll() is None
    dialog.get_by_label("Reason").fill("the end-to-end test says so")
    dialog.get_by_role("button", name="Signal a process").click()
    expect(dialog.get_by_text("Succeeded").first).to_be_visible()
    assert victim.wait(timeout=10) == -15
    page.goto("/audit")
    rows = page.get_by_role("row").filter(has_text=f"process/{victim.pid}")
    expect(rows.filter(has_text="run.requested")).to_contain_text("the end-to-end test says so")
    expect(rows.filter(has_text="run.finished")).to_contain_text("succeeded")
    expect(page.get_by_text("Chain verified up to")).to_be_visible()


def test_services_are_listed_or_honestly_not_available(page: Page, product: Product) -> None:
    page.goto(f"/nodes/{product.run.nodes[0].name}/services")
    if Path("/run/systemd/system").is_dir():
        expect(page.get_by_role("row").nth(3)).to_be_visible()
    else:
        expect(page.get_by_text("Services are not available")).to_be_visible()
        expect(page.get_by_text("systemd is not running")).to_be_visible()


@pytest.fixture
def firing(product: Product) -> Iterator[str]:
    """A rule that is made to fire, as a person would add one."""
    name = f"EndToEnd{uuid.uuid4().hex[:8]}"
    rule = product.home / "prometheus" / "rules.d" / "e2e.yml"
    rule.write_text(
        json.dumps(
            {
                "groups": [
                    {
                        "name": "e2e",
                        "rules": [
                            {
                                "alert": name,
                                "expr": f'up{{node="{product.run.nodes[0].name}"}} == 1',
                                "labels": {"severity": "warning"},
                                "annotations": {"summary": f"{name} fires <i>truly</i>"},
                            }
                        ],
                    }
                ]
            }
        )
    )
    reload_rules(product)
    yield name
    rule.unlink()
    reload_rules(product)


def reload_rules(product: Product) -> None:
    request = urllib.request.Request(f"{product.run.prometheus.url}/-/reload", method="POST")  # noqa: S310
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass


def test_a_real_alert_arrives_is_silenced_and_stays_in_the_history(
    page: Page, product: Product, firing: str
) -> None:
    def told() -> bool:
        page.goto("/alerts")
        page.wait_for_timeout(500)
        return page.get_by_text(f"{firing} fires <i>truly</i>").count() > 0

    until(told, seconds=60, what="the alert is in the panel")

    def received() -> bool:
        rows = product.api("/api/v1/alerts/history")["items"]
        return any(row["name"] == firing for row in rows)

    until(received, seconds=60, what="Alertmanager's webhook told the operator")
    row = page.locator(".alert-row").filter(has_text=firing)
    row.get_by_role("link", name="Silence").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("a drill")
    dialog.get_by_role("button", name="Silence").click()
    expect(dialog).not_to_be_visible()
    page.wait_for_load_state()

    def silenced() -> bool:
        page.goto("/alerts")
        page.wait_for_timeout(500)
        return row.get_by_text("silent until").count() > 0

    until(silenced, seconds=30, what="the alert is shown as silenced")
    with urllib.request.urlopen(  # noqa: S310
        f"{product.run.alertmanager.url}/api/v2/silences", timeout=10
    ) as reply:
        silences = json.loads(reply.read())
    assert [s["comment"] for s in silences if s["status"]["state"] == "active"] == ["a drill"]
    page.goto(f"/nodes/{product.run.nodes[0].name}/alerts")
    expect(page.get_by_text(firing).first).to_be_visible()


def test_every_page_fits_a_phone_in_both_languages_and_themes(page: Page) -> None:
    for language, theme, name in (("ru", "dark", "Узлы"), ("en", "light", "Fleet")):
        page.goto("/settings")
        page.locator("#language").select_option(language)
        page.locator(f'input[name="theme"][value="{theme}"]').check(force=True)
        page.locator('form[action="/settings/preferences"] button').click()
        page.wait_for_url("**/settings*")
        for width in (390, 1440):
            page.set_viewport_size({"width": width, "height": 844})
            for path in ("/", "/alerts", "/logs", "/runs", "/audit", "/settings"):
                page.goto(path)
                assert page.evaluate("document.documentElement.lang") == language, path
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{path} at {width} in {language}"
        assert page.locator("html").get_attribute("data-bs-theme") == theme
        page.goto("/")
        expect(page.get_by_role("heading", level=1)).to_contain_text(name)


def test_the_panel_is_quick(page: Page) -> None:
    page.goto("/")
    before = time.monotonic()
    page.goto("/")
    expect(page.get_by_role("heading", name="Fleet")).to_be_visible()
    assert time.monotonic() - before < 2


def test_signing_out_ends_the_session(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    page.goto("/audit")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
