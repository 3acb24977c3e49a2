"""Count what is held at once, in all and by whom."""

import threading
from collections import Counter


class Slots:
    """At most ``most`` are held at once, ``most_each`` of them by one holder."""

    __slots__ = ("_held", "_lock", "most", "most_each")

    def __init__(self, most: int, most_each: int) -> None:
        self.most = most
        self.most_each = most_each
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """How many are held now."""
        with self._lock:
            return self._held.total()

    def enter(self, holder: str) -> bool:
        """Take one, to be given back with ``leave``; False where there is none left."""
        with self._lock:
            if self._held.total() >= self.most or self._held[holder] >= self.most_each:
                return False
            self._held[holder] += 1
            return True

    def leave(self, holder: str) -> None:
        """Give one back."""
        with self._lock:
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]
