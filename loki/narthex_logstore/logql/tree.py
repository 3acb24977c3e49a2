"""The syntax tree of a query."""

import enum
from dataclasses import dataclass


class Match(enum.StrEnum):
    """How a value is compared with a string."""

    EQUAL = "="
    NOT_EQUAL = "!="
    REGEX = "=~"
    NOT_REGEX = "!~"


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on one label, as a string."""

    name: str
    how: Match
    value: str


@dataclass(frozen=True, slots=True)
class LineFilter:
    """Keep lines that contain or match one of the values, or, if negative, none of them."""

    how: Match
    values: tuple[str, ...]


class Kind(enum.StrEnum):
    """What a label's value is read as."""

    NUMBER = "number"
    DURATION = "duration"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition on one label, as a quantity: seconds, bytes or a plain number."""

    name: str
    how: str
    value: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part must hold."""

    parts: "tuple[LabelFilter, ...]"
    depth: int


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One part must hold."""

    parts: "tuple[LabelFilter, ...]"
    depth: int


LabelFilter = Matcher | Compare | AllOf | AnyOf


class Parse(enum.StrEnum):
    """A stage that turns lines into labels."""

    JSON = "json"
    LOGFMT = "logfmt"


@dataclass(frozen=True, slots=True)
class LineFormat:
    """Replace the line: texts and, in tuples of one, names of labels."""

    parts: tuple[str | tuple[str], ...]


Stage = LineFilter | LabelFilter | Parse | LineFormat


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines."""

    matchers: tuple[Matcher, ...]
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class RangeFunction:
    """Count or add up lines in a window before each step."""

    name: str
    query: LogQuery
    range_ns: int
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Grouping:
    """By which labels series are put together, or by which not."""

    names: frozenset[str]
    without: bool


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Put series together."""

    name: str
    expr: "Expr"
    grouping: Grouping
    depth: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number."""

    value: float
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Vector:
    """A number as a series without labels."""

    value: float
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic, or a comparison that keeps what holds (or, ``as_bool``, tells 0 or 1)."""

    how: str
    left: "Expr"
    right: "Expr"
    as_bool: bool
    depth: int


Expr = RangeFunction | Aggregate | Scalar | Vector | Binary
Query = LogQuery | Expr
