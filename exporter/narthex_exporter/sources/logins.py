"""Read the sessions that systemd-logind has written below /run/systemd, see sd-login(3)."""

import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

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
            text = _text(f"{folder}/{name}")
            if text is not None:
                found.append(parse_session(text))
    return found


def _text(path: str) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return os.read(fd, _MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)
