"""Judge whether a gate between waves holds."""

import math
from dataclasses import dataclass
from typing import Final

from narthex_exporter.contract.wire import FieldError
from narthex_operator.clients.prometheus import Prometheus, Sample
from narthex_operator.clients.services import RefusedRequestError
from narthex_operator.errors import InvalidError, UnreachableError
from narthex_operator.security.chain import clean
from narthex_operator.services.selectors import listed

SECONDS: Final = 3.0
_BAD_REQUESTS: Final = frozenset({400, 422})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a gate holds now; ``told`` says why not."""

    holds: bool
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """Asks Prometheus. A gate holds while there is a sample, and none is 0 or no number."""

    prometheus: Prometheus

    def check(self, query: str) -> Verdict:
        """Ask once. What cannot be asked does not hold."""
        try:
            found = self.prometheus.instant(query, seconds=SECONDS)
        except UnreachableError as error:
            return Verdict(holds=False, told=clean(str(error), limit=500))
        return judge(found)

    def validate(self, query: str) -> None:
        """Raise InvalidError for what is no PromQL, UnreachableError where nobody can tell."""
        try:
            self.prometheus.instant(query, seconds=SECONDS)
        except RefusedRequestError as error:
            if error.answered not in _BAD_REQUESTS:
                raise
            message = f"is refused by Prometheus: {clean(error.said, limit=300)}"
            raise InvalidError(
                f"the gate {message}", errors=(FieldError(path="strategy.gate", message=message),)
            ) from error


def judge(samples: list[Sample]) -> Verdict:
    """Judge a query's result."""
    if not samples:
        return Verdict(holds=False, told="it gives no sample")
    red = [one for one in samples if one.value == 0 or math.isnan(one.value)]
    if red:
        names = [f"{_name(one)} is {one.value:g}" for one in red]
        return Verdict(holds=False, told=listed(names, most=3))
    return Verdict(holds=True)


def _name(sample: Sample) -> str:
    inner = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items())[:4])
    return "{" + inner[:48] + "}"
