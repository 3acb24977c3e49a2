"""Read the policy of this node's actor, by the actor's own reader."""

import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from narthex_exporter.sources.kept import Kept, stamp
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.programs import run

_SECONDS: Final = 20.0
# The actor reads no longer file than half of this.
_FILE_BYTES: Final = 128 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPolicy:
    """What a policy allows. ``danger`` is the highest by family, ``error`` why it is void.

    ``actions`` tells of each action of this release whether it may be run, ``approvals`` by
    danger how many other people must approve; ``sha256`` is the file's, empty without one. A node
    without a policy file is one whose actor does nothing: its mode is ``off``.
    """

    mode: str
    danger: dict[str, str] = field(default_factory=dict)
    root_equivalent: int = 0
    actions: dict[str, bool] = field(default_factory=dict)
    approvals: dict[str, int] = field(default_factory=dict)
    changed_seconds: float = 0.0
    sha256: str = ""
    error: str = ""


@dataclass(slots=True)
class OwnPolicies:
    """The policy of a file, read anew when the file changes.

    By ``narthex actor check-policy``, as it is the actor's word that counts; in a program of its
    own, as reading it takes more memory than all metrics.
    """

    _kept: Kept[OwnPolicy] = field(default_factory=Kept, init=False)

    @classmethod
    def of(cls, _paths: Paths) -> Self:
        """Make one that has read nothing."""
        return cls()

    def read(self, file: Path) -> OwnPolicy:
        """Give what the file allows now. Raises UnavailableError where it cannot be asked for."""
        return self._kept.get(stamp([file]), lambda: _read(file))


def _read(file: Path) -> OwnPolicy:
    try:
        changed = file.stat().st_mtime
        with file.open("rb") as opened:
            digest = hashlib.sha256(opened.read(_FILE_BYTES)).hexdigest()
    except OSError:
        return OwnPolicy(mode="off")
    argv = ("-Im", "narthex_exporter", "actor", "check-policy", "--json", "--", str(file))
    done = run((sys.executable, *argv), timeout_seconds=_SECONDS)
    if done.code != 0:
        error = " ".join(done.error.split()) or f"the reader ended with {done.code}"
        return OwnPolicy(mode="off", changed_seconds=changed, sha256=digest, error=error)
    told: dict[str, Any] = json.loads(done.output)
    return OwnPolicy(
        mode=told["mode"],
        danger=told["danger"],
        root_equivalent=len(told["root_equivalent"]),
        actions=told["actions"],
        approvals=told["require_approvals"],
        sha256=digest,
        changed_seconds=changed,
    )
