"""What the exporter tells of itself."""

import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Any

from narthex_exporter.selfmetrics import Certificates, Requests


def test_the_expiry_of_a_certificate_follows_its_file(authority: Any, tmp_path: Path) -> None:
    path = tmp_path / "node.pem"
    now = [0.0]
    watched = Certificates(lambda: [path, tmp_path / "absent.pem"], clock=lambda: now[0])
    assert not watched.samples()
    now[0] += 10
    path.write_bytes(authority.leaf(file="short").cert.read_bytes())
    first, _begins = watched.samples()
    assert first.values == (str(path), "CN=one")
    path.write_bytes(authority.leaf(ends=dt.timedelta(hours=5), file="long").cert.read_bytes())
    now[0] += 10
    second, _begins = watched.samples()
    assert second.value - first.value > 3 * 3600
    path.write_bytes(b"no certificate")
    now[0] += 10
    assert not watched.samples()


def test_requests_are_counted_by_code_and_handler() -> None:
    requests = Requests()
    for code in ("200", "200", "500"):
        requests.count(code=code, handler="/metrics")
    assert {sample.values: sample.value for sample in requests.samples()} == {
        ("200", "/metrics"): 2,
        ("500", "/metrics"): 1,
    }


def test_the_exporter_starts_without_the_library_that_makes_certificates() -> None:
    code = "import sys, narthex_exporter.app; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-Ic", code], check=False).returncode == 0
