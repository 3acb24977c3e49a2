"""Say in what waves a fleet run goes over its nodes, and when it stops."""

import math
from collections.abc import Sequence
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_NODES: Final = 1000
MAX_PARALLEL: Final = 64
DAY: Final = 86_400.0


class Strategy(BaseModel):
    """How a fleet run goes over its nodes.

    ``canary`` nodes go first, then batches of ``batch`` nodes, or per cent of all; at most
    ``parallel`` at once. When ``stop_after`` have failed nothing more is begun. Between waves it
    waits ``pause_seconds``, then until ``gate`` has held for ``gate_for_seconds``, and stops where
    that has not happened within ``gate_timeout_seconds``.

    A gate is PromQL. It holds while its result has at least one sample and every sample is a
    number other than 0; a gate that cannot be asked does not hold.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    canary: int = Field(default=0, ge=0, le=MAX_NODES)
    batch: Annotated[str, Field(pattern=r"^(?:[1-9][0-9]{0,3}|(?:100|[1-9][0-9]?)%)$")] = "100%"
    parallel: int = Field(default=16, ge=1, le=MAX_PARALLEL)
    stop_after: int = Field(default=1, ge=1, le=MAX_NODES)
    gate: str = Field(default="", max_length=2000)
    gate_for_seconds: float = Field(default=60.0, ge=0, le=DAY, allow_inf_nan=False)
    gate_timeout_seconds: float = Field(default=600.0, ge=1, le=DAY, allow_inf_nan=False)
    pause_seconds: float = Field(default=0.0, ge=0, le=DAY, allow_inf_nan=False)

    @model_validator(mode="after")
    def _gate_can_hold(self) -> Self:
        if self.gate and self.gate_timeout_seconds < self.gate_for_seconds:
            raise ValueError("gate_timeout_seconds must not be less than gate_for_seconds")
        return self

    def waves(self, nodes: int) -> tuple[int, ...]:
        """Give the size of each wave over so many nodes; their sum is all of them."""
        sizes = [min(self.canary, nodes)] if self.canary else []
        left = nodes - sum(sizes)
        if self.batch.endswith("%"):
            size = max(1, math.ceil(nodes * int(self.batch[:-1]) / 100))
        else:
            size = int(self.batch)
        while left > 0:
            sizes.append(min(size, left))
            left -= sizes[-1]
        return tuple(size for size in sizes if size)


def spread(sizes: Sequence[int]) -> list[int]:
    """Give the number of the wave of each node in order."""
    return [wave for wave, size in enumerate(sizes) for _ in range(size)]
