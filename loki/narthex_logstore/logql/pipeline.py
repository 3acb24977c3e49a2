"""Run the stages of a query over one line after the other."""

import json
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from narthex_logstore.logql.tree import (
    AllOf,
    AnyOf,
    Compare,
    Kind,
    LabelFilter,
    LineFilter,
    LineFormat,
    Match,
    Matcher,
    Parse,
    Stage,
)
from narthex_logstore.logql.units import parse_bytes, parse_duration
from narthex_logstore.model import SECOND
from narthex_logstore.regex import Pattern, searching, whole, within_lines

ERROR: Final = "__error__"
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_]")
_FIELD: Final = re.compile(r'([^\s="]+)(?:=(?:"((?:\\.|[^"\\])*)"|([^\s"]*)))?(?=\s|$)')
_COMPARE: Final = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_READ: Final[dict[Kind, Callable[[str], float]]] = {
    Kind.NUMBER: float,
    Kind.DURATION: lambda text: parse_duration(text) / SECOND,
    Kind.BYTES: parse_bytes,
}
_MAX_DEPTH: Final = 32

LinePredicate = Callable[[bytes], bool]
LabelPredicate = Callable[[dict[str, str]], bool]
# Gives the line on, perhaps another one, or None; may add to the labels.
Step = Callable[[bytes, dict[str, str]], bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A compiled pipeline: filters on the raw line first, then steps that know labels.

    ``needle`` is in every line that passes, and ``pattern`` matches in it, so that a search of
    many lines at once may begin with either.
    """

    needle: bytes
    pattern: Pattern | None
    filters: tuple[LinePredicate, ...]
    steps: tuple[Step, ...]

    @property
    def passes_everything(self) -> bool:
        """Tell whether every line passes as it is."""
        return not self.filters and not self.steps

    def keeps(self, line: bytes) -> bool:
        """Apply the filters on the raw line."""
        return all(keeps(line) for keeps in self.filters)

    def transform(self, line: bytes, labels: dict[str, str]) -> bytes | None:
        """Apply the rest; ``labels`` may grow."""
        current: bytes | None = line
        for step in self.steps:
            current = step(current, labels) if current is not None else None
        return current


def compile_pipeline(stages: Sequence[Stage]) -> Pipeline:
    """Compile stages. Raises QueryError for a wrong regular expression."""
    leading = 0
    while leading < len(stages) and isinstance(stages[leading], LineFilter):
        leading += 1
    plain = [each for each in stages[:leading] if isinstance(each, LineFilter)]
    needles = [
        each.values[0].encode("utf-8", "replace")
        for each in plain
        if each.how is Match.EQUAL and len(each.values) == 1
    ]
    patterns = (
        within_lines(each.values[0])
        for each in plain
        if each.how is Match.REGEX and len(each.values) == 1
    )
    return Pipeline(
        needle=max(needles, key=len, default=b""),
        pattern=next((each for each in patterns if each is not None), None),
        filters=tuple(_line_predicate(each) for each in plain),
        steps=tuple(_step(each) for each in stages[leading:]),
    )


def matcher_predicate(matcher: Matcher) -> Callable[[str], bool]:
    """Compile a matcher into a test of one value; a missing label is empty."""
    if matcher.how is Match.EQUAL:
        return lambda value: value == matcher.value
    if matcher.how is Match.NOT_EQUAL:
        return lambda value: value != matcher.value
    pattern = whole(matcher.value)
    if matcher.how is Match.REGEX:
        return lambda value: pattern.search(value.encode("utf-8", "replace")) is not None
    return lambda value: pattern.search(value.encode("utf-8", "replace")) is None


def _line_predicate(stage: LineFilter) -> LinePredicate:
    tests: list[LinePredicate]
    if stage.how in (Match.EQUAL, Match.NOT_EQUAL):
        tests = [_contains(value.encode("utf-8", "replace")) for value in stage.values]
    else:
        tests = [_searches(value) for value in stage.values]
    if stage.how in (Match.EQUAL, Match.REGEX):
        return tests[0] if len(tests) == 1 else lambda line: any(test(line) for test in tests)
    return lambda line: not any(test(line) for test in tests)


def _contains(needle: bytes) -> LinePredicate:
    return lambda line: needle in line


def _searches(pattern: str) -> LinePredicate:
    compiled = searching(pattern)
    return lambda line: compiled.search(line) is not None


def _step(stage: Stage) -> Step:
    if isinstance(stage, LineFilter):
        keeps = _line_predicate(stage)
        return lambda line, _labels: line if keeps(line) else None
    if isinstance(stage, Parse):
        return _parse_json if stage is Parse.JSON else _parse_logfmt
    if isinstance(stage, LineFormat):
        return _line_format(stage)
    passes = _label_predicate(stage)
    return lambda line, labels: line if passes(labels) else None


def _label_predicate(stage: LabelFilter) -> LabelPredicate:
    if isinstance(stage, Matcher):
        name, test = stage.name, matcher_predicate(stage)
        return lambda labels: test(labels.get(name, ""))
    if isinstance(stage, Compare):
        return _compare(stage)
    parts = [_label_predicate(each) for each in stage.parts]
    if isinstance(stage, AllOf):
        return lambda labels: all(part(labels) for part in parts)
    assert isinstance(stage, AnyOf)  # noqa: S101 - tells mypy what is left
    return lambda labels: any(part(labels) for part in parts)


def _compare(stage: Compare) -> LabelPredicate:
    compare, read = _COMPARE[stage.how], _READ[stage.kind]

    def passes(labels: dict[str, str]) -> bool:
        value = labels.get(stage.name)
        if value is None:
            return False
        try:
            return bool(compare(read(value), stage.value))
        except ValueError:
            # As in Loki: the line stays, and says that it could not be judged.
            labels.setdefault(ERROR, "LabelFilterErr")
            return True

    return passes


def _parse_json(line: bytes, labels: dict[str, str]) -> bytes:
    try:
        data = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        labels[ERROR] = "JSONParserErr"
        return line
    known = frozenset(labels)
    _flatten("", data, labels, known, _MAX_DEPTH)
    return line


def _flatten(
    prefix: str, data: dict[str, object], labels: dict[str, str], known: frozenset[str], depth: int
) -> None:
    for key, value in data.items():
        name = f"{prefix}_{key}" if prefix else key
        if isinstance(value, dict) and depth:
            _flatten(name, value, labels, known, depth - 1)
        elif isinstance(value, bool):
            _extract(name, "true" if value else "false", labels, known)
        elif isinstance(value, str):
            _extract(name, value, labels, known)


def _parse_logfmt(line: bytes, labels: dict[str, str]) -> bytes:
    known = frozenset(labels)
    for match in _FIELD.finditer(line.decode("utf-8", "replace")):
        name, quoted, plain = match.groups()
        value = _unescape(quoted) if quoted is not None else plain
        if value:
            _extract(name, value, labels, known)
    return line


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t", "r": "\r"}.get(m[1], m[1]), text)


def _extract(name: str, value: str, labels: dict[str, str], known: frozenset[str]) -> None:
    clean = _NOT_IN_NAMES.sub("_", name)
    if not clean or clean[0].isdigit():
        clean = f"_{clean}"
    # JSON may spell half of a surrogate pair, which no reply could carry.
    readable = value.encode("utf-8", "replace").decode()
    labels[f"{clean}_extracted" if clean in known else clean] = readable


def _line_format(stage: LineFormat) -> Step:
    def render(_line: bytes, labels: dict[str, str]) -> bytes:
        texts = (
            part if isinstance(part, str) else labels.get(part[0], "") for part in stage.parts
        )
        return "".join(texts).encode("utf-8", "replace")

    return render
