"""The mark ``override`` of PEP 698, which Python itself has from 3.12 on.

typing_extensions has it too, and takes two MiB of each node's memory; only type checkers read it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import override
else:

    def override(method: Callable[..., Any]) -> Callable[..., Any]:
        """Mark a method that replaces its base class' own."""
        return method


__all__ = ["override"]
