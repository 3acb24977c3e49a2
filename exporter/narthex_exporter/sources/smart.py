"""Ask drives for their health, by smartctl(8)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from narthex_exporter.sources.programs import MissingError, ProgramError, run

_ASK: Final = (
    "smartctl",
    "--json",
    "--info",
    "--health",
    "--attributes",
    "--tolerance=verypermissive",
    # A drive that sleeps is not woken for its temperature.
    "--nocheck=standby",
    "--format=brief",
    "--log=error",
)
# See smartctl(8), "Exit status": the command line was wrong; the drive could not be opened, or
# sleeps.
_NOTHING: Final = 0b11
_SLEEPS: Final = ("STANDBY", "SLEEP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """One drive that smartctl finds; ``kind`` is what it gives to ``--device``."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What smartctl printed of a drive. A member that is missing is looked for without errors."""

    values: Mapping[str, Any]

    def get(self, path: str) -> Any:
        """Give a member by its dotted path; None where there is none."""
        found: Any = self.values
        for name in path.split("."):
            if not isinstance(found, Mapping) or name not in found:
                return None
            found = found[name]
        return found

    def text(self, path: str) -> str:
        """Give a member as stripped text; empty where there is none."""
        found = self.get(path)
        return found.strip() if isinstance(found, str) else "" if found is None else str(found)

    def number(self, path: str) -> float | None:
        """Give a member that is a number, or yes or no; None where it is none."""
        found = self.get(path)
        if isinstance(found, str):
            # Some members of SCSI drives are numbers in quotes.
            try:
                return float(found)
            except ValueError:
                return None
        return found + 0 if isinstance(found, int | float) else None

    def members(self, path: str) -> dict[str, "Answer"]:
        """Give the objects in an object, by name."""
        found = self.get(path)
        if not isinstance(found, Mapping):
            return {}
        return {name: Answer(each) for name, each in found.items() if isinstance(each, Mapping)}

    def rows(self, path: str) -> list["Answer"]:
        """Give the objects in an array."""
        found = self.get(path)
        if not isinstance(found, list):
            return []
        return [Answer(each) for each in found if isinstance(each, Mapping)]

    @property
    def has_data(self) -> bool:
        """Whether the drive could be asked, and was awake."""
        status = self.number("smartctl.exit_status")
        failed = any(row.text("severity") == "error" for row in self.rows("smartctl.messages"))
        return status is not None and not int(status) & _NOTHING and not failed

    @property
    def sleeps(self) -> bool:
        """Whether the drive was left asleep."""
        texts = [row.text("string") for row in self.rows("smartctl.messages")]
        return any(word in text for text in texts for word in _SLEEPS)


def scan() -> tuple[Answer, list[Drive]]:
    """Find drives. Raises MissingError, ProgramError, ValueError."""
    answer = parse(run(("smartctl", "--json", "--scan"), timeout_seconds=30.0).output)
    found = [Drive(name=row.text("name"), kind=row.text("type")) for row in answer.rows("devices")]
    return answer, [drive for drive in found if drive.name.startswith("/dev/") and drive.kind]


def ask(drive: Drive) -> Answer:
    """Ask one drive. Raises MissingError, ProgramError, ValueError."""
    command = (*_ASK, f"--device={drive.kind}", "--", drive.name)
    return parse(run(command, timeout_seconds=30.0).output)


def parse(output: bytes) -> Answer:
    """Parse what smartctl prints with ``--json``. Raises ValueError where it is no object."""
    found = json.loads(output.decode("utf-8", "replace"))
    if not isinstance(found, Mapping):
        raise ValueError("smartctl printed no object")  # noqa: TRY004 - data, no type of ours
    return Answer(found)


__all__ = ["Answer", "Drive", "MissingError", "ProgramError", "ask", "parse", "scan"]
