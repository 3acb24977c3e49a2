"""Read the sessions that systemd-logind has written below /run/systemd, see sd-login(3)."""

import os
from pathlib import Path
from typing import Final, NamedTuple

from narthex_exporter.sources.text import small_file

_MOST_BYTES: Final = 16384


class Session(NamedTuple):
    """What kind of session one is; empty where logind says nothing."""

    seat: str
    remote: bool
    kind: str
    class_: str


def parse_session(text: str) -> Session:
    """Parse a file of /run/systemd/sessions: lines of ``KEY=value``."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            found[key] = value
    return Session(
        seat=found.get("SEAT", ""),
        remote=found.get("REMOTE", "0") == "1",
        kind=found.get("TYPE", ""),
        class_=found.get("CLASS", ""),
    )


def sessions(root: Path) -> list[Session]:
    """Read every session of the machine at ``root``.

    Raises FileNotFoundError where logind does not run. One that ends meanwhile is left out.
    """
    folder = root / "run/systemd/sessions"
    found = []
    for name in sorted(os.listdir(folder)):  # noqa: PTH208 - in each scrape
        # Beside each file lies the pipe that a session is held by: to open that would count.
        if not name.endswith(".ref"):
            text = small_file(f"{folder}/{name}", most_bytes=_MOST_BYTES, follow=False)
            if text is not None:
                found.append(parse_session(text))
    return found
