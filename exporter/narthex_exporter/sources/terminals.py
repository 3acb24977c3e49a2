"""Know who is signed in on a terminal, so that they can be told of before it is pulled away."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from narthex_exporter.contract.facts import SessionFact
from narthex_exporter.sources.text import clean

_TEXT: Final = 128


@dataclass(frozen=True, slots=True)
class Terminals:
    """The machine's records of who is signed in; see utmp(5)."""

    def list(self) -> Sequence[SessionFact]:
        """List sessions, oldest first; those of processes that are gone are left out."""
        found = [
            SessionFact(
                user=clean(one.name, limit=_TEXT),
                terminal=clean(one.terminal or "", limit=_TEXT),
                address=clean(one.host or "", limit=_TEXT),
                since_seconds=one.started,
                pid=int(one.pid or 0),
            )
            for one in psutil.users()
            if not one.pid or psutil.pid_exists(int(one.pid))
        ]
        return sorted(found, key=lambda one: one.since_seconds)
