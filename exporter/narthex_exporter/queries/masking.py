"""Keep secrets that stand in command lines from leaving the node."""

import re
from collections.abc import Sequence
from typing import Final

MASK: Final = "***"
# Every repetition below is bounded: a process chooses its command line, and could choose one
# that takes a careless expression seconds.
_ARGUMENT_CHARACTERS: Final = 2048

_WORD: Final = (
    r"(?:passw(?:or)?d|passphrase|secret|token|api[-_]?key|access[-_]?key|private[-_]?key"
    r"|credential)[\w.-]{0,64}"
)
# `--password=x`, `PGPASSWORD=x`, `"secret": "x"`: masked to the end, as a value may hold spaces.
_ASSIGNED: Final = re.compile(rf"(?i)({_WORD}[\"']?\s?[=:]\s?)(.+)", re.DOTALL)
# `sh -c 'program --password x'`
_INNER: Final = re.compile(rf"(?i)(\s--?[\w.-]{{0,64}}{_WORD}\s{{1,8}})([^\s-]\S{{0,2048}})")
# `--password`, its value being the next argument.
_OPTION: Final = re.compile(rf"(?i)--?[\w.-]{{0,64}}{_WORD}")
# `scheme://user:x@host`
_URL: Final = re.compile(r"(://[^\s/:@]{0,256}:)([^\s/@]{1,2048})(@)")
# `Authorization: Bearer x`
_BEARER: Final = re.compile(r"(?i)(\b(?:bearer|basic)\s{1,8})(\S{1,2048})")
# The name of an environment variable says more than an option's, and is judged more strictly.
_SECRET_NAME: Final = re.compile(
    r"(?i)pass|secret|token|key|credential|auth|cookie|session|private|dsn|salt|pin$|pwd$"
)
_WORDS: Final = re.compile(r"\"[^\"]*\"?|'[^']*'?|\S+")
# Programs for which `-px` is a password, not a port.
_MYSQL: Final = re.compile(r"(?:[^\s/]{0,64}/)*(?:mysql|mariadb)[\w-]{0,32}$")


def masked(arguments: Sequence[str]) -> str:
    """Join a command line's arguments, each value that looks like a secret's masked."""
    is_mysql = bool(arguments) and _MYSQL.match(arguments[0][:_ARGUMENT_CHARACTERS]) is not None
    shown = []
    before = ""
    for argument in arguments:
        if _OPTION.fullmatch(before) and not argument.startswith("-"):
            shown.append(MASK)
        elif is_mysql and argument.startswith("-p") and argument != "-p":
            shown.append(f"-p{MASK}")
        else:
            shown.append(_masked_inside(argument[:_ARGUMENT_CHARACTERS]))
        before = argument[:_ARGUMENT_CHARACTERS]
    return " ".join(shown)


def masked_variable(variable: str) -> str:
    """Mask the value of ``NAME=value`` where the name, or the value itself, looks secret."""
    name, equals, value = variable.partition("=")
    if value and _SECRET_NAME.search(name[:_ARGUMENT_CHARACTERS]):
        return f"{name}{equals}{MASK}"
    return f"{name}{equals}{_masked_inside(value[:_ARGUMENT_CHARACTERS])}"


def masked_file(text: str) -> str:
    """Mask what looks secret in each line of a unit's file."""
    return "\n".join(_masked_setting(line) for line in text.split("\n"))


def _masked_setting(line: str) -> str:
    # `Environment=A=b "C=d e"`: each is judged by its own name; the rest by what it looks like.
    setting, equals, value = line.partition("=")
    if setting.strip() != "Environment":
        return _masked_inside(line[:_ARGUMENT_CHARACTERS])
    words = _WORDS.findall(value[:_ARGUMENT_CHARACTERS])
    return f"{setting}{equals}{' '.join(map(_masked_word, words))}"


def _masked_word(word: str) -> str:
    quote = word[0] if word[0] in "\"'" else ""
    return f"{quote}{masked_variable(word.strip(quote) if quote else word)}{quote}"


def _masked_inside(argument: str) -> str:
    text = _URL.sub(rf"\1{MASK}\3", argument)
    text = _BEARER.sub(rf"\1{MASK}", text)
    text = _INNER.sub(rf"\1{MASK}", text)
    return _ASSIGNED.sub(rf"\1{MASK}", text)
