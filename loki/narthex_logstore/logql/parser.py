"""Parse LogQL into its tree; errors are worded as Loki words them."""

import functools
import re
from collections.abc import Callable, Iterable
from importlib import resources
from typing import Any, Final, TypeVar, cast

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from narthex_logstore.logql.tree import (
    Aggregate,
    AllOf,
    AnyOf,
    Binary,
    Compare,
    Expr,
    Grouping,
    Kind,
    LabelFilter,
    LineFilter,
    LineFormat,
    LogQuery,
    Match,
    Matcher,
    Parse,
    Query,
    RangeFunction,
    Scalar,
    Stage,
    Vector,
)
from narthex_logstore.logql.units import parse_bytes, parse_duration
from narthex_logstore.model import SECOND, QueryError
from narthex_logstore.regex import searching, whole

MAX_DEPTH: Final = 50
_MATCHES: Final = {"|=": Match.EQUAL, "|~": Match.REGEX}
_ESCAPE: Final = re.compile(
    r"\\(?:([abfnrtv\\\"'])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.?))",
    re.DOTALL,
)
_SHORT: Final = dict(zip("abfnrtv\\\"'", "\a\b\f\n\r\t\v\\\"'", strict=True))
_FIELD: Final = re.compile(r"\{\{\s*\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_EMPTY: Final = (
    "parse error : queries require at least one regexp or equality matcher that does not have an "
    'empty-compatible value. For instance, app=~".*" does not meet this requirement, but '
    'app=~".+" will'
)
_MORE_DEPTH: Final = "the query is nested too deeply"
_T = TypeVar("_T")


def parse(text: str, *, max_chars: int = 5120) -> Query:
    """Parse a query. Raises QueryError."""
    if len(text) > max_chars:
        raise QueryError(f"parse error : query too long: {len(text)} > {max_chars} characters")
    if not text.strip():
        raise QueryError("parse error : syntax error: unexpected $end")
    return cast("Query", _parse(text, "start"))


def parse_selector(text: str, *, max_chars: int = 5120) -> tuple[Matcher, ...]:
    """Parse a bare selector. Raises QueryError."""
    query = parse(text, max_chars=max_chars)
    if not isinstance(query, LogQuery) or query.stages:
        raise QueryError("parse error : only label matchers are supported")
    return query.matchers


def parse_stream(text: str) -> dict[str, str]:
    """Read the labels of a pushed stream, ``{a="b"}``. Raises QueryError."""
    matchers = cast("tuple[Matcher, ...]", _parse(text, "selector"))
    if any(each.how is not Match.EQUAL for each in matchers):
        raise QueryError(f"error parsing labels: {text[:200]!r}: only = is allowed")
    found = {each.name: each.value for each in matchers}
    if len(found) != len(matchers):
        raise QueryError(f"error parsing labels: {text[:200]!r}: a label occurs twice")
    return found


def _parse(text: str, start: str) -> object:
    try:
        return _parser().parse(text, start=start)
    except UnexpectedInput as error:
        raise QueryError(_explain(error, text)) from None
    except VisitError as error:
        if isinstance(error.orig_exc, QueryError):
            raise error.orig_exc from None
        raise


@functools.cache
def _parser() -> Lark:
    grammar = resources.files(__package__).joinpath("grammar.lark").read_text("utf-8")
    # The tree is built as rules are reduced, so that depth costs no recursion.
    return Lark(
        grammar,
        parser="lalr",
        start=["start", "selector"],
        transformer=_Builder(),
        maybe_placeholders=False,
    )


def _explain(error: UnexpectedInput, text: str) -> str:
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        line = text.count("\n") + 1
        column = len(text) - (text.rfind("\n") + 1) + 1
        return f"parse error at line {line}, col {column}: syntax error: unexpected $end"
    if isinstance(error, UnexpectedToken):
        what = str(error.token)
    elif isinstance(error, UnexpectedCharacters):
        what = _word(text, error.pos_in_stream or 0)
    else:
        what = "input"
    return (
        f"parse error at line {error.line}, col {error.column}: "
        f"syntax error: unexpected {what[:40]!r} (or not supported by this log store)"
    )


def _word(text: str, position: int) -> str:
    match = re.compile(r"\w+|.", re.DOTALL).match(text, position)
    return match.group() if match else ""


def unquote(token: str) -> str:
    """Read a string as Go does. Raises QueryError."""
    if token.startswith("`"):
        return token[1:-1].replace("\r", "")
    return _ESCAPE.sub(_unescape, token[1:-1])


def _unescape(match: "re.Match[str]") -> str:
    short, two, four, eight, octal, other = match.groups()
    if short:
        return _SHORT[short]
    number = int(two or four or eight or "0", 16) if not octal else int(octal, 8)
    if other is not None or number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:  # noqa: PLR2004
        raise QueryError(f"parse error : invalid char escape {match.group()[:10]!r}")
    return chr(number)


def _deeper(*parts: object) -> int:
    depth = 1 + max((getattr(part, "depth", 1) for part in parts), default=0)
    if depth > MAX_DEPTH:
        raise QueryError(f"parse error : {_MORE_DEPTH}")
    return depth


def _only(kind: "type[_T]", items: Iterable[object]) -> tuple[_T, ...]:
    return tuple(item for item in items if isinstance(item, kind))


class _Builder(Transformer[Token, Any]):
    """Build the tree from the grammar's rules; each method is a rule."""

    def start(self, items: list[Query]) -> Query:
        return items[0]

    def STRING(self, token: Token) -> Token:  # noqa: N802 - the terminal's name
        return token.update(value=unquote(token))

    def matcher(self, items: list[Token]) -> Matcher:
        name, how, value = items
        return _matcher(name, how, value)

    def selector(self, items: list[Matcher]) -> tuple[Matcher, ...]:
        return tuple(items)

    def stages(self, items: list[Stage]) -> tuple[Stage, ...]:
        return tuple(items)

    def log_query(self, items: list[Any]) -> LogQuery:
        matchers, stages = items
        return _log_query(matchers, stages)

    def line_filter(self, items: list[Token]) -> LineFilter:
        how = _MATCHES.get(items[0]) or {"!=": Match.NOT_EQUAL, "!~": Match.NOT_REGEX}[items[0]]
        values = tuple(str(each) for each in items[1:])
        if how in (Match.REGEX, Match.NOT_REGEX):
            for value in values:
                searching(value)
        return LineFilter(how, values)

    def json_stage(self, _items: list[Token]) -> Parse:
        return Parse.JSON

    def logfmt_stage(self, _items: list[Token]) -> Parse:
        return Parse.LOGFMT

    def line_format(self, items: list[Token]) -> LineFormat:
        pieces = _FIELD.split(items[0])
        parts = [(piece,) if at % 2 else piece for at, piece in enumerate(pieces) if piece]
        if any("{{" in part for part in parts if isinstance(part, str)):
            raise QueryError(
                "parse error : line_format: this log store knows {{.label}} only, no functions"
            )
        return LineFormat(tuple(parts))

    def label_stage(self, items: list[LabelFilter]) -> LabelFilter:
        return items[0]

    def label_or(self, items: list[LabelFilter]) -> LabelFilter:
        return items[0] if len(items) == 1 else AnyOf(tuple(items), _deeper(*items))

    def label_and(self, items: list[LabelFilter]) -> LabelFilter:
        return items[0] if len(items) == 1 else AllOf(tuple(items), _deeper(*items))

    def label_match(self, items: list[Token]) -> Matcher:
        return _matcher(*items)

    def label_compare(self, items: list[Any]) -> Compare:
        name, how, (value, kind) = items
        return Compare(str(name), "==" if how == "=" else str(how), value, kind)

    def number(self, items: list[Token]) -> tuple[float, Kind]:
        return float("".join(items)), Kind.NUMBER

    def duration(self, items: list[Token]) -> tuple[float, Kind]:
        return parse_duration(items[0]) / SECOND, Kind.DURATION

    def bytes_(self, items: list[Token]) -> tuple[float, Kind]:
        return parse_bytes(items[0]), Kind.BYTES

    def scalar(self, items: list[Token]) -> Scalar:
        return Scalar(float(items[0]))

    def vector(self, items: list[Token]) -> Vector:
        return Vector(float(items[0]))

    def negate(self, items: list[Any]) -> Expr:
        operand = items[1]
        return Binary("*", Scalar(-1.0), operand, False, _deeper(operand))

    def binary(self, items: list[Any]) -> Binary:
        left, how, right = items
        return Binary(str(how), left, right, False, _deeper(left, right))

    def compare(self, items: list[Any]) -> Binary:
        left, how, right = items[0], items[1], items[-1]
        as_bool = len(items) > 3  # noqa: PLR2004 - left, operator, bool, right
        if isinstance(left, Scalar) and isinstance(right, Scalar) and not as_bool:
            raise QueryError("parse error : comparisons between scalars must use BOOL modifier")
        return Binary(str(how), left, right, as_bool, _deeper(left, right))

    def range_fn(self, items: list[Any]) -> RangeFunction:
        name, matchers, before, window, after = items
        range_ns = parse_duration(window.strip("[] \t\n"))
        if range_ns <= 0:
            raise QueryError("parse error : the range must be more than nothing")
        return RangeFunction(str(name), _log_query(matchers, before + after), range_ns)

    def grouping(self, items: list[Token]) -> Grouping:
        return Grouping(frozenset(map(str, items[1:])), items[0] == "without")

    def aggregate(self, items: list[Any]) -> Aggregate:
        groupings = _only(Grouping, items)
        if len(groupings) > 1:
            raise QueryError("parse error : an aggregation takes one grouping")
        expr = next(each for each in items[1:] if not isinstance(each, Grouping))
        if isinstance(expr, Scalar):
            raise QueryError(f"parse error : {items[0]} needs series, not a number")
        grouping = groupings[0] if groupings else Grouping(frozenset(), without=False)
        return Aggregate(str(items[0]), expr, grouping, _deeper(expr))


def _matcher(name: str, how: str, value: str) -> Matcher:
    match = Match(str(how))
    if match in (Match.REGEX, Match.NOT_REGEX):
        whole(str(value))
    return Matcher(str(name), match, str(value))


def _log_query(matchers: tuple[Matcher, ...], stages: tuple[Stage, ...]) -> LogQuery:
    if not any(_demands_something(each) for each in matchers):
        raise QueryError(_EMPTY)
    return LogQuery(matchers, stages)


def _demands_something(matcher: Matcher) -> bool:
    test: dict[Match, Callable[[], bool]] = {
        Match.EQUAL: lambda: bool(matcher.value),
        Match.NOT_EQUAL: lambda: not matcher.value,
        Match.REGEX: lambda: whole(matcher.value).search(b"") is None,
        Match.NOT_REGEX: lambda: whole(matcher.value).search(b"") is not None,
    }
    return test[matcher.how]()
