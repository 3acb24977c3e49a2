"""Put series together: aggregations, arithmetic, comparisons."""

import math
from collections.abc import Callable, Iterable
from typing import Final

from narthex_logstore.logql.tree import Binary
from narthex_logstore.model import Labels, QueryError

# A value a step, None where a series has none.
Values = list[float | None]
Series = dict[Labels, Values]

_AGGREGATES: Final[dict[str, Callable[[list[float]], float]]] = {
    "sum": math.fsum,
    "avg": lambda values: math.fsum(values) / len(values),
    "min": min,
    "max": max,
    "count": len,
}
_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}
_MIRRORED: Final = {"==": "==", "!=": "!=", ">": "<", ">=": "<=", "<": ">", "<=": ">="}


def aggregate(name: str, series: Series, key: Callable[[Labels], Labels]) -> Series:
    """Put the series of one key together, step by step."""
    groups: dict[Labels, list[Values]] = {}
    for labels, values in series.items():
        groups.setdefault(key(labels), []).append(values)
    function = _AGGREGATES[name]
    return {labels: [_at_step(function, step) for step in zip(*columns, strict=True)]
            for labels, columns in groups.items()}  # fmt: skip


def _at_step(
    function: Callable[[list[float]], float], step: Iterable[float | None]
) -> float | None:
    present = [value for value in step if value is not None]
    return function(present) if present else None


def combine(expr: Binary, left: float | Series, right: float | Series) -> float | Series:
    """Apply a binary operator; series meet where all their labels are equal."""
    if isinstance(left, dict) and isinstance(right, dict):
        return {
            labels: [_apply(expr, a, b) for a, b in zip(values, right[labels], strict=True)]
            for labels, values in left.items()
            if labels in right
        }
    if isinstance(left, dict) and not isinstance(right, dict):
        return {k: [_apply(expr, a, right) for a in values] for k, values in left.items()}
    if isinstance(right, dict) and not isinstance(left, dict):
        if expr.how in _MIRRORED:
            # A comparison keeps the series' value, on whichever side it stands.
            expr = Binary(_MIRRORED[expr.how], expr.right, expr.left, expr.as_bool, expr.depth)
            return combine(expr, right, left)
        return {k: [_apply(expr, left, b) for b in values] for k, values in right.items()}
    if isinstance(left, dict) or isinstance(right, dict):
        raise QueryError("parse error : these operands do not go together")
    result = _apply(expr, left, right)
    return math.nan if result is None else result


def _apply(expr: Binary, left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return None
    if expr.how in _COMPARISONS:
        holds = _COMPARISONS[expr.how](left, right)
        return float(holds) if expr.as_bool else left if holds else None
    if expr.how == "/":
        return left / right if right else math.nan
    return {"+": left + right, "-": left - right, "*": left * right}[expr.how]
