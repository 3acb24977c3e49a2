"""Read what this node's actor tells of itself in its runtime folder."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from narthex_exporter.sources.text import small_file

_MOST_BYTES: Final = 64 * 1024
_MOST_NAMES: Final = 512
_NAME: Final = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_WORD: Final = re.compile(r"[a-z0-9-]{0,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorStatus:
    """What the actor last said. ``running`` is its word: ``written_at`` tells how old it is."""

    written_at: float
    running: bool
    mode: str
    policy_sha256: str
    audit_seq: int
    runs_under_way: int
    runs_accepted: Mapping[str, int]
    requests_refused: Mapping[str, int]


def read_actor_status(path: Path) -> ActorStatus | None:
    """Read the file; None where there is none. Raises ValueError for what is no status."""
    text = small_file(path, most_bytes=_MOST_BYTES, follow=False)
    if text is None:
        return None
    found = json.loads(text)
    if not isinstance(found, dict) or found.get("version") != 1:
        raise ValueError(f"{path} is no status of an actor that this release knows")
    return ActorStatus(
        written_at=float(_number(found, "written_at")),
        running=found.get("running") is True,
        mode=_word(found, "mode"),
        policy_sha256=_word(found, "policy_sha256"),
        audit_seq=int(_number(found, "audit_seq")),
        runs_under_way=int(_number(found, "runs_under_way")),
        runs_accepted=_counts(found, "runs_accepted"),
        requests_refused=_counts(found, "requests_refused"),
    )


def _number(found: dict[str, Any], name: str) -> float | int:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 53:
        raise ValueError(f"the actor's status has no number {name}")
    return value


def _word(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ValueError(f"the actor's status has no {name}")
    return value


def _counts(found: dict[str, Any], name: str) -> dict[str, int]:
    value = found.get(name)
    if not isinstance(value, dict) or len(value) > _MOST_NAMES:
        raise ValueError(f"the actor's status has no counts {name}")
    if not all(_NAME.fullmatch(key) for key in value):
        raise ValueError(f"the actor's status counts something strange in {name}")
    return {key: int(_number(value, key)) for key in value}
