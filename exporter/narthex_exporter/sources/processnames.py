"""Name the group of a process by rules, as process-exporter 0.7's configuration file has them."""

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_TAG: Final = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_FIELD: Final = re.compile(r"\.([A-Za-z]+)$")
_MATCH: Final = re.compile(r'(?:\.Matches\.(\w+)|index \.Matches "(\w+)")$')
_CGROUP: Final = re.compile(r"index \.Cgroups (\d+)$")
_KEYS: Final = frozenset({"name", "comm", "exe", "cmdline"})
_HINT: Final = "see process-exporter's README, 'Using a config file'"
# What RE2, process-exporter's matcher, writes otherwise than Python.
_POSIX: Final = {
    "[:alnum:]": "0-9A-Za-z",
    "[:alpha:]": "A-Za-z",
    "[:blank:]": r"\t ",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:space:]": r"\t\n\v\f\r ",
    "[:upper:]": "A-Z",
    "[:word:]": "0-9A-Za-z_",
    "[:xdigit:]": "0-9A-Fa-f",
    r"\z": r"\Z",
    "(?<": "(?P<",
}
_RE2: Final = re.compile(r"\[:[a-z]+:\]|\\.|\(\?<(?![=!])", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What rules look at; what only few of them ask for is read when it is asked for."""

    comm: str
    cmdline: Sequence[str]
    pid: str
    started: float
    user: Callable[[], str]
    cgroups: Callable[[], Sequence[str]]

    @property
    def exe(self) -> str:
        """The program as it was called; its short name where that is unknown."""
        return self.cmdline[0] if self.cmdline else self.comm


Part = Callable[[Subject, Mapping[str, str]], str]


def base_name(path: str) -> str:
    """Give the last part of a path, as Go's filepath.Base does."""
    return posixpath.basename(path.rstrip("/")) or ("/" if path else ".")


def program_name(exe: str) -> str:
    """Name a program by its first argument, without what it wrote behind its name.

    ``sshd: root@pts/0`` is ``sshd``, a login shell ``-bash`` is ``bash``.
    """
    return base_name(exe.partition(": ")[0].rstrip(":")).lstrip("-") or "-"


_FIELDS: Final[dict[str, Part]] = {
    "Comm": lambda subject, _: subject.comm,
    "ExeBase": lambda subject, _: base_name(subject.exe),
    "ExeFull": lambda subject, _: subject.exe,
    "Username": lambda subject, _: subject.user(),
    "PID": lambda subject, _: subject.pid,
    "StartTime": lambda subject, _: _go_time(subject.started),
    "Cgroups": lambda subject, _: f"[{' '.join(subject.cgroups())}]",
    "Matches": lambda _, found: f"map[{' '.join(f'{k}:{found[k]}' for k in sorted(found))}]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One entry of ``process_names``: what is not None must match."""

    name: tuple[Part, ...]
    comm: frozenset[str] | None = None
    exe: Mapping[str, str] | None = None
    cmdline: tuple[re.Pattern[str], ...] | None = None

    def group(self, subject: Subject) -> str | None:
        """Name the group of a process; None where the rule is not for it."""
        if self.comm is not None and subject.comm not in self.comm:
            return None
        if self.exe is not None:
            path = self.exe.get(base_name(subject.cmdline[0])) if subject.cmdline else None
            if path is None or path not in {"", subject.cmdline[0]}:
                return None
        found: dict[str, str] = {}
        if self.cmdline is not None:
            line = " ".join(subject.cmdline)
            for pattern in self.cmdline:
                match = pattern.search(line)
                if match is None:
                    return None
                found |= match.groupdict("")
        return "".join(part(subject, found) for part in self.name)


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules in their order: the first that matches names the group."""

    rules: tuple[Rule, ...] = field(default=())

    def group(self, subject: Subject) -> str | None:
        """Name the group of a process; None where no rule is for it."""
        for rule in self.rules:
            name = rule.group(subject)
            if name is not None:
                return name
        return None


EACH_PROGRAM: Final = Rules(
    (Rule(name=(lambda subject, _: program_name(subject.exe),), cmdline=(re.compile("."),)),)
)


def load(path: str) -> Rules:
    """Read a configuration file; no path is one group a program. Raises ValueError."""
    if not path:
        return EACH_PROGRAM
    # Only where there is such a file: it takes a MiB on each node.
    import yaml  # noqa: PLC0415

    try:
        data = yaml.safe_load(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}; {_HINT}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"is no YAML: {' '.join(str(error).split())}; {_HINT}") from error
    return parse(data)


def parse(data: Any) -> Rules:
    """Make rules of a configuration file's content. Raises ValueError that says where."""
    entries = data.get("process_names") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"has no list 'process_names'; {_HINT}")
    if extra := sorted(map(str, data.keys() - {"process_names"})):
        raise ValueError(f"has unknown settings: {', '.join(extra)}; {_HINT}")
    rules = []
    for number, entry in enumerate(entries, 1):
        try:
            rules.append(_rule(entry))
        except ValueError as error:
            raise ValueError(f"process_names, entry {number}: {error}; {_HINT}") from error
    return Rules(tuple(rules))


def _rule(entry: Any) -> Rule:
    if not isinstance(entry, dict):
        raise ValueError("must be a mapping of name, comm, exe and cmdline")  # noqa: TRY004
    if extra := sorted(map(str, entry.keys() - _KEYS)):
        raise ValueError(f"unknown settings: {', '.join(extra)}")
    comm, exe, cmdline = (_words(entry, key) for key in ("comm", "exe", "cmdline"))
    if comm is None and exe is None and cmdline is None:
        raise ValueError("needs one of comm, exe and cmdline")
    patterns = None if cmdline is None else tuple(map(_pattern, cmdline))
    groups = frozenset().union(*(each.groupindex for each in patterns or ()))
    return Rule(
        name=_template(entry.get("name") or "{{.ExeBase}}", groups),
        comm=None if comm is None else frozenset(comm),
        exe=None if exe is None else {base_name(e): e if "/" in e else "" for e in exe},
        cmdline=patterns,
    )


def _words(entry: Mapping[str, Any], key: str) -> list[str] | None:
    words = entry.get(key)
    if words is None:
        return None
    if not isinstance(words, list) or not words:
        raise ValueError(f"{key} must be a list of texts")
    return [str(word) for word in words]


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(_RE2.sub(lambda found: _POSIX.get(found[0], found[0]), text))
    except re.error as error:
        raise ValueError(f"cmdline {text!r} is no regular expression: {error}") from error


def _template(text: Any, groups: frozenset[str]) -> tuple[Part, ...]:
    if not isinstance(text, str):
        raise ValueError("name must be a text")  # noqa: TRY004
    parts: list[Part] = []
    at, trim = 0, False
    for tag in _TAG.finditer(text):
        _literal(parts, text[at : tag.start()], start=trim, end=bool(tag[1]))
        parts.append(_tag(tag[2], groups))
        at, trim = tag.end(), bool(tag[3])
    _literal(parts, text[at:], start=trim, end=False)
    return tuple(parts)


def _literal(parts: list[Part], text: str, *, start: bool, end: bool) -> None:
    if "{{" in text:
        raise ValueError("name has a '{{' without its '}}'")
    text = text.lstrip() if start else text
    text = text.rstrip() if end else text
    if text:
        parts.append(lambda _subject, _found: text)


def _tag(what: str, groups: frozenset[str]) -> Part:
    if match := _MATCH.match(what):
        group = match[1] or match[2]
        if group not in groups:
            raise ValueError(f"name asks for {what}, and no cmdline has a (?P<{group}>…)")
        return lambda _, found: found[group]
    if (match := _FIELD.match(what)) and match[1] in _FIELDS:
        return _FIELDS[match[1]]
    if match := _CGROUP.match(what):
        number = int(match[1])
        return lambda subject, _: "".join(list(subject.cgroups())[number : number + 1])
    known = ", ".join(f".{name}" for name in _FIELDS)
    raise ValueError(f"name has {{{{{what}}}}}, which is none of {known}, .Matches.<group>")


def _go_time(seconds: float) -> str:
    moment = datetime.fromtimestamp(int(seconds), UTC)
    part = f"{seconds % 1:.2f}"[1:].rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%d %H:%M:%S}{part} +0000 UTC"
