"""Have systemd itself check unit files and calendar expressions; see systemd-analyze(1)."""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from narthex_exporter.contract.facts import CalendarFact
from narthex_exporter.contract.steps import Outcome, RunProgram
from narthex_exporter.sources.text import clean

Run = Callable[[RunProgram], Outcome]

_SECONDS: Final = 20.0
_LINE_CHARACTERS: Final = 500
_MOST_LINES: Final = 50
_ELAPSE: Final = re.compile(r"\s*(?:Next elapse|Iter\. #\d+): (.+)")


def verify(run: Run, name: str, files: Mapping[str, str]) -> Sequence[str]:
    """Check a unit on a copy in a folder of ours. Returns what systemd complains of.

    The folder of a file that is verified stands first in systemd's search path, so the copy's
    drop-ins are read too.
    """
    with tempfile.TemporaryDirectory(prefix="narthex-verify-") as folder:
        for path, content in files.items():
            target = Path(folder) / path
            target.parent.mkdir(mode=0o700, exist_ok=True)
            target.write_text(content)
        done = run(
            RunProgram(
                argv=(
                    "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "--",
                    f"{folder}/{name}",
                ),
                timeout_seconds=_SECONDS,
            )
        )  # fmt: skip
    lines = [line for line in done.output.splitlines() if line.strip()]
    if done.code != 0 and not lines:
        lines = [f"systemd-analyze failed with code {done.code}"]
    shown = (clean(line.replace(f"{folder}/", ""), limit=_LINE_CHARACTERS) for line in lines)
    return tuple(shown)[:_MOST_LINES]


def calendar(run: Run, expression: str, *, times: int) -> CalendarFact:
    """Ask what a calendar expression means."""
    done = run(
        RunProgram(
            argv=("systemd-analyze", "calendar", f"--iterations={times}", "--", expression),
            timeout_seconds=_SECONDS,
        )
    )
    lines = done.output.splitlines()
    if done.code != 0:
        why = lines[-1] if lines else f"systemd-analyze failed with code {done.code}"
        return CalendarFact(problem=clean(why, limit=_LINE_CHARACTERS))
    normal = next((line for line in lines if "Normalized form:" in line), "")
    found = filter(None, map(_ELAPSE.match, lines))
    return CalendarFact(
        normalized=clean(normal.partition(":")[2].strip(), limit=_LINE_CHARACTERS),
        elapses=tuple(clean(one[1].strip(), limit=100) for one in found if one[1] != "never"),
    )
