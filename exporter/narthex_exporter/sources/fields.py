"""Pick a few lines of a long file of names and numbers, without looking at all the others."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from narthex_exporter.sources.place import Paths

T = TypeVar("T")


@dataclass(slots=True)
class Fields(Generic[T]):
    """Remembers on which line each wanted name stands.

    The kernel writes such files, a name and a number a line, in one order until it boots anew; a
    line that is not where it was has all of them looked for again.
    """

    _choose: Callable[[str], T | None] | None = field(default=None, init=False)
    _plan: list[tuple[int, str, T]] = field(default_factory=list, init=False)
    _lines: int = field(default=-1, init=False)

    @classmethod
    def of(cls, _paths: Paths) -> Self:
        """Make one that knows no file yet."""
        return cls()

    def pick(self, text: str, choose: Callable[[str], T | None]) -> Iterator[tuple[T, str]]:
        """Give what ``choose`` makes of a name, and the text behind it, for each line it wants.

        A line with a name and nothing else is left out. ``choose`` must stay the same function.
        """
        lines = text.split("\n")
        if not self._fits(lines) or choose is not self._choose:
            self._make(lines, choose)
        for position, start, thing in self._plan:
            yield thing, lines[position][len(start) :]

    def _fits(self, lines: list[str]) -> bool:
        return len(lines) == self._lines and all(
            lines[position].startswith(start) for position, start, _ in self._plan
        )

    def _make(self, lines: list[str], choose: Callable[[str], T | None]) -> None:
        self._choose, self._lines, self._plan = choose, len(lines), []
        for position, line in enumerate(lines):
            name, *values = line.split(None, 1)[:2] or [""]
            thing = choose(name) if values else None
            if thing is not None:
                # With the blank behind it: a name may begin as another does.
                start = line[: line.index(name) + len(name) + 1]
                self._plan.append((position, start, thing))
