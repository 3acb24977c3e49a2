"""What one node costs stays within its budget: series, descriptors, what is loaded."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

SERIES = 3000
# What takes more memory than it is worth on each node: see ADR 0013.
HEAVY = {
    "pydantic", "cryptography", "prometheus_client", "click", "yaml", "typing_extensions",
    "wsproto",
}  # fmt: skip


def test_an_ordinary_node_has_few_series(start: Callable[..., Any]) -> None:
    site = start()
    site.exporter.background.run_due()
    page = site.ask("/metrics").text
    assert 300 < sum(not line.startswith("#") for line in page.splitlines()) <= SERIES


def test_scrapes_keep_no_descriptors(start: Callable[..., Any]) -> None:
    site = start()
    for _ in range(10):
        site.ask("/metrics")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(100):
        site.ask("/metrics")
    assert len(os.listdir("/proc/self/fd")) <= before + 5  # noqa: PTH208


def test_what_serves_loads_nothing_heavy() -> None:
    code = (
        "import sys; from narthex_exporter import app, renewal, serving;"
        "from narthex_exporter.config import Config;"
        "from narthex_exporter.logs import shipper;"
        "app.choose_collectors(Config()); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-Ic", code], capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(done.stdout.split())
