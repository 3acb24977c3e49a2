"""Choose nodes by names, groups or label matchers: all of what is meant, or nothing.

::

    all
    web-1, web-2, @database            names and groups; each must be there
    env="prod", role=~"web.*"          Prometheus' matchers; all of them must match

Matchers see ``name``, ``group`` and the labels of nodes; a label that a node lacks is empty.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import re2
from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput, VisitError

from narthex_exporter.contract.wire import FieldError
from narthex_operator.errors import InvalidError
from narthex_operator.security.chain import clean

MAX_TEXT: Final = 4096
ALL: Final = "all"
NAME: Final = "name"
GROUP: Final = "group"

_GRAMMAR: Final = r"""
start: "{" _matchers "}" | _matchers | refs
_matchers: matcher ("," matcher)* ","?
matcher: WORD OPERATOR STRING
refs: ref ("," ref)* ","?
ref: AT? WORD
AT: "@"
OPERATOR: "=~" | "!~" | "!=" | "="
WORD: /[A-Za-z0-9_][A-Za-z0-9_.-]*/
STRING: /"(?:[^"\\\n]|\\.)*"/ | /'(?:[^'\\\n]|\\.)*'/ | /`[^`]*`/
%ignore /[ \t\r\n]+/
"""
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_ESCAPE: Final = re.compile(r"\\(?:([\\\"'nrt])|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_SHORT: Final = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Matcher:
    """One of Prometheus' matchers; regular expressions are RE2's and match the whole value."""

    label: str
    operator: str
    value: str

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Tell whether a node with these attributes is meant."""
        found = attributes.get(self.label, "")
        if self.operator in {"=", "!="}:
            return (found == self.value) is (self.operator == "=")
        return (_regex(self.value).fullmatch(found) is not None) is (self.operator == "=~")


@dataclass(frozen=True, slots=True)
class Selector:
    """Which nodes are meant: by names and groups, or by matchers, or all."""

    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    matchers: tuple[Matcher, ...] = ()
    everything: bool = False

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Tell whether a node is meant; its attributes hold its name and group."""
        if self.everything:
            return True
        if self.matchers:
            return all(matcher.matches(attributes) for matcher in self.matchers)
        return attributes[NAME] in self.names or attributes[GROUP] in self.groups


def parse_selector(text: str) -> Selector:
    """Read a selector. Raises InvalidError, which says where it is wrong."""
    if len(text) > MAX_TEXT:
        raise invalid(f"is longer than {MAX_TEXT} characters")
    if not text.strip():
        raise invalid("is empty: nothing is never taken for everything")
    try:
        found: Selector = _parser().parse(text)  # type: ignore[assignment] # as _Builder makes it
    except UnexpectedInput as error:
        raise invalid(_explained(error, text)) from error
    except VisitError as error:
        if isinstance(error.orig_exc, InvalidError):
            raise error.orig_exc from None
        raise
    return found


def attributes_of(name: str, group: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Give what matchers see of a node. A label cannot stand for its name or group."""
    return {**labels, NAME: name, GROUP: group}


def invalid(message: str) -> InvalidError:
    """Make the error of a selector that is not one."""
    return InvalidError(
        f"the selector {message}",
        errors=(FieldError(path="on", message=message),),
        hint="""write all, names (web-1,web-2), groups (@web) or matchers (env="prod")""",
    )


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise InvalidError unless these can be a node's labels."""
    errors = []
    if len(labels) > 32:  # noqa: PLR2004 - told in the message
        errors.append(FieldError(path="labels", message="at most 32 labels"))
    for label, value in labels.items():
        path = f"labels.{clean(label, limit=64)}"
        if not _LABEL.fullmatch(label) or len(label) > 63:  # noqa: PLR2004 - as names elsewhere
            errors.append(
                FieldError(path=path, message="1 to 63 of a-z, A-Z, 0-9 and _, no digit first")
            )
        elif label in {NAME, GROUP} or label.startswith("__"):
            errors.append(FieldError(path=path, message="this name is taken"))
        if not value or len(value) > 128 or not value.isprintable():  # noqa: PLR2004 - told
            errors.append(FieldError(path=path, message="1 to 128 printable characters"))
    if errors:
        raise InvalidError(
            "; ".join(f"{error.path}: {error.message}" for error in errors), errors=tuple(errors)
        )


class _Builder(Transformer[Token, Any]):
    """Make the selector while it is read."""

    def start(self, parts: list[Any]) -> Selector:
        if isinstance(parts[0], Selector):
            return parts[0]
        matchers: tuple[Matcher, ...] = tuple(parts)
        # As Prometheus asks: a slip must not come to mean every node that lacks a label.
        if all(matcher.matches({}) for matcher in matchers):
            raise invalid(
                "has only matchers that a node without these labels matches too:"
                """ add one that it does not, such as env=~".+\""""
            )
        return Selector(matchers=matchers)

    def matcher(self, parts: list[Token]) -> Matcher:
        label, operator, quoted = map(str, parts)
        if not _LABEL.fullmatch(label):
            raise invalid(f"has {clean(label, limit=64)!r}, which is no label's name")
        value = _unquoted(quoted)
        if operator in {"=~", "!~"}:
            _regex(value)
        return Matcher(label, operator, value)

    def refs(self, parts: list[tuple[str, bool]]) -> Selector:
        if parts == [(ALL, False)]:
            return Selector(everything=True)
        if (ALL, False) in parts:
            raise invalid("names all beside others")
        names = tuple(name for name, group in parts if not group)
        groups = tuple(name for name, group in parts if group)
        for kind in (names, groups):
            twice = [name for name in kind if kind.count(name) > 1]
            if twice:
                raise invalid(f"names {clean(twice[0], limit=64)} more than once")
        return Selector(names=names, groups=groups)

    def ref(self, parts: list[Token]) -> tuple[str, bool]:
        return str(parts[-1]), len(parts) > 1


@functools.cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", transformer=_Builder(), maybe_placeholders=False)


@functools.lru_cache(maxsize=256)
def _regex(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise invalid(f"has a regular expression that RE2 refuses: {_said(error)}") from error


def _said(error: Exception) -> str:
    told = error.args[0] if error.args else ""
    return clean(told.decode(errors="replace") if isinstance(told, bytes) else str(told))


def _unquoted(token: str) -> str:
    if token.startswith("`"):
        return token[1:-1]

    def character(match: re.Match[str]) -> str:
        short, code, other = match.groups()
        if other is not None or (code and 0xD800 <= int(code, 16) <= 0xDFFF):  # noqa: PLR2004
            raise invalid(f"has the escape {clean(match.group(), limit=16)}, which is none")
        return _SHORT.get(short, short) if short else chr(int(code, 16))

    return _ESCAPE.sub(character, token[1:-1])


def _explained(error: UnexpectedInput, text: str) -> str:
    at = error.pos_in_stream
    if at is None or at < 0 or at >= len(text):
        return "ends where more must follow"
    return f"is not understood at character {at + 1}: {clean(text[at : at + 20], limit=20)!r}"


def listed(names: Sequence[str], *, most: int = 5) -> str:
    """Name some of many, and how many more there are."""
    more = len(names) - most
    shown = ", ".join(clean(name, limit=64) for name in names[:most])
    return shown + (f" and {more} more" if more > 0 else "")
