"""A real Prometheus scrapes the exporter over mutual TLS, and is told no where it should be."""

import contextlib
import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from narthex_exporter.transport.identity import Role
from narthex_exporter.transport.tls import TLSFiles


def _job(name: str, port: int, files: TLSFiles, server_name: str = "localhost") -> dict[str, Any]:
    return {
        "job_name": name,
        "scheme": "https",
        "scrape_interval": "1s",
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        "tls_config": {
            "ca_file": str(files.ca),
            "cert_file": str(files.cert),
            "key_file": str(files.key),
            "server_name": server_name,
        },
    }


@pytest.fixture
def prometheus(site: Any, tmp_path: Path) -> Iterator[str]:
    """Prometheus with a job for each way to ask."""
    scraper = site.authority.leaf(Role.SCRAPE, "prometheus")
    jobs = [
        _job("right", site.port, scraper),
        _job("wrong-role", site.port, site.authority.leaf(Role.NODE, "n2")),
        _job("wrong-name", site.port, scraper, "n2.example"),
    ]
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump({"scrape_configs": jobs}))
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            "/usr/bin/prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}/api/v1"
    finally:
        process.terminate()
        process.wait(10)


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - our own
        return json.loads(reply.read())["data"]


def targets(prometheus: str) -> dict[str, dict[str, Any]]:
    """Each job's target, once all were scraped."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            found = {
                each["scrapePool"]: each for each in get(f"{prometheus}/targets")["activeTargets"]
            }
            if len(found) == 3 and all(each["health"] != "unknown" for each in found.values()):
                return found
        time.sleep(0.2)
    raise AssertionError("Prometheus did not scrape")


def test_prometheus_scrapes_with_its_own_role_and_the_right_name_only(
    site: Any, prometheus: str
) -> None:
    found = targets(prometheus)
    assert found["right"]["health"] == "up", found["right"]["lastError"]
    assert "403" in found["wrong-role"]["lastError"]
    assert "not n2.example" in found["wrong-name"]["lastError"]
    query = urllib.parse.quote('node_scrape_collector_success{job="right"}')
    series = get(f"{prometheus}/query?query={query}")["result"]
    every = site.exporter.server.app.scraper.collectors
    assert len(series) == sum(each.interval is None for each in every)
