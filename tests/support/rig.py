"""Drive a whole installation from outside, as a person or a script would."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from narthex_operator.local.runfile import RunFile, read_run_file

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


def free_base() -> int:
    """Find twelve ports in a row that nobody has."""
    for base in range(21100, 60000, 100):
        with contextlib.ExitStack() as stack:
            try:
                for port in [*range(base, base + 6), *range(base + 10, base + 14)]:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise AssertionError("no ports left")


def until(look: Callable[[], T], *, seconds: float = 20.0, what: str = "") -> T:
    """Look again until there is something to see."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@dataclass
class Product:
    """A running installation, known only by what it tells tools: run.json."""

    home: Path
    environment: dict[str, str]
    started_in_seconds: float = 0.0

    @property
    def run(self) -> RunFile:
        return read_run_file(self.home / "run.json")

    def script(self, name: str, *arguments: str, timeout: float = 180) -> Any:
        return subprocess.run(
            [ROOT / "script" / name, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=self.home.parent,
        )

    def narthex(self, *arguments: str, stdin: str = "") -> Any:
        return subprocess.run(
            [sys.executable, "-Im", "narthex_exporter", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=60,
            check=False,
        )

    def api(self, path: str, body: Any = None, *, method: str | None = None) -> Any:
        """Call the API with the token for scripts of this machine."""
        request = urllib.request.Request(  # noqa: S310 - our own URL
            self.run.panel.url + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method or ("GET" if body is None else "POST"),
            headers={
                "Authorization": f"Bearer {Path(self.run.api_token_file).read_text().strip()}",
                "Content-Type": "application/json",
            },
        )
        context = ssl.create_default_context(cafile=self.run.panel.ca_file)
        with urllib.request.urlopen(request, context=context, timeout=20) as reply:  # noqa: S310
            data = reply.read()
        return json.loads(data) if data else None

    def prometheus(self, query: str) -> list[dict[str, Any]]:
        url = f"{self.run.prometheus.url}/api/v1/query?query={urllib.parse.quote(query)}"
        with urllib.request.urlopen(url, timeout=10) as reply:  # noqa: S310
            found: list[dict[str, Any]] = json.loads(reply.read())["data"]["result"]
        return found


def make_product(folder: Path) -> Product:
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "NARTHEX_HOME": str(folder / "home"),
        "NARTHEX_PORT_BASE": str(free_base()),
        "NARTHEX_VENV": str(Path(sys.executable).parent.parent),
    }
    return Product(home=folder / "home", environment=environment)


def processes_of(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(home) in word for word in process.cmdline()):
                found.append(process)
    return found
