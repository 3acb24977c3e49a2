"""Read a mapping from a configuration file into typed values, naming what is wrong and where.

For what every exporter loads: pydantic would say the same and take ten MiB on each node.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

_UNSET: Any = object()


class SettingError(ValueError):
    """A setting is missing, unknown or wrong; the message begins with where it stands."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where or 'the file'}: {why}")


@dataclass(slots=True)
class Section:
    """A mapping of settings; ``end`` refuses those that nobody asked for.

    Each method raises SettingError; one without a default wants the setting to be there.
    """

    data: Any
    path: str = ""
    _left: set[Any] = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.data, dict):
            raise SettingError(self.path, "names and values are due")
        self._left = set(self.data)

    def at(self, name: str) -> str:
        """Say where a setting stands."""
        return f"{self.path}.{name}" if self.path else name

    def string(self, name: str, default: str = _UNSET) -> str:
        """Give a text."""
        found: str = self._typed(name, default, str, "a text")
        return found

    def strings(self, name: str) -> tuple[str, ...]:
        """Give a list of texts; none where it is not set."""
        found = self._typed(name, [], list, "a list of texts")
        for each in found:
            if not isinstance(each, str):
                raise SettingError(self.at(name), f"{each!r} is no text")
        return tuple(found)

    def boolean(self, name: str, default: bool | None) -> bool | None:  # noqa: FBT001 - a value
        """Give true or false."""
        found: bool | None = self._typed(name, default, bool, "true or false")
        return found

    def integer(
        self, name: str, default: int = _UNSET, *, least: int, most: int | None = None
    ) -> int:
        """Give a whole number within bounds."""
        found: int = self._typed(name, default, int, "a whole number")
        if isinstance(found, bool) or found < least or (most is not None and found > most):
            bounds = f"at least {least}" if most is None else f"{least} to {most}"
            raise SettingError(self.at(name), f"{found!r} is not {bounds}")
        return found

    def number(self, name: str, default: float, *, above: float, most: float) -> float:
        """Give a number, more than ``above`` and at most ``most``."""
        found = self._typed(name, default, (int, float), "a number")
        if isinstance(found, bool) or not isfinite(found) or not above < found <= most:
            raise SettingError(
                self.at(name), f"{found!r} is not more than {above:g} and at most {most:g}"
            )
        return float(found)

    def section(self, name: str) -> "Section":
        """Give the settings below a name; none where it is not set."""
        return Section(self._typed(name, {}, dict, "names and values"), self.at(name))

    def sections(self, name: str) -> Iterator["Section"]:
        """Give the settings of each item of a list."""
        found = self._typed(name, [], list, "a list")
        for position, each in enumerate(found):
            yield Section(each, f"{self.at(name)}.{position}")

    def end(self) -> None:
        """Refuse what is left."""
        if self._left:
            raise SettingError(self.at(str(min(self._left, key=str))), "there is no such setting")

    def _typed(self, name: str, default: Any, kind: Any, noun: str) -> Any:
        self._left.discard(name)
        found = self.data.get(name, default)
        if found is _UNSET:
            raise SettingError(self.at(name), "this setting is missing")
        if found is not default and not isinstance(found, kind):
            raise SettingError(self.at(name), f"{found!r} is not {noun}")
        return found
