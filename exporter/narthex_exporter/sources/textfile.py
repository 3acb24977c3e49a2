"""Read files in Prometheus' text format, as scripts and probes leave them."""

import errno
import logging
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

from narthex_exporter.sources.place import Paths

log = logging.getLogger(__name__)

# What is larger is no handful of a script's metrics, and would hold a scrape up.
MOST_BYTES: Final = 8 << 20
KINDS: Final = ("counter", "gauge", "histogram", "summary", "untyped")
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(
    r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\\n]|\\[\\"n])*)"[ \t]*'
)
_ESCAPE: Final = re.compile(r"\\([\\\"n])")
_INFINITE: Final = "+Inf"
# Integers up to so many digits are kept as such; a double holds no more of them.
_DIGITS: Final = 18


class Line(NamedTuple):
    """One sample: ``name`` may be longer than its ``family``'s, as ``_bucket`` of a histogram.

    ``labels`` are sorted, those without a value left out, ``values`` in their order. ``help`` is
    None where the file has none, ``kind`` is one of KINDS.
    """

    family: str
    name: str
    kind: str
    help: str | None
    labels: tuple[str, ...]
    values: tuple[str, ...]
    value: float


@dataclass(slots=True)
class _Family:
    """What is known of a metric so far."""

    name: str
    kind: str | None = None
    help: str | None = None
    lines: list[Line] = field(default_factory=list)


def parse(data: bytes) -> list[Line]:
    """Parse the text format, version 0.0.4, families in the order of the file.

    Text that is not UTF-8 is shown as U+FFFD; bounds of buckets and quantiles are written as
    OpenMetrics wants them (``1.0``), buckets sorted. Raises ValueError, which names the line but
    never its content, for what Prometheus' own parser refuses, and for timestamps, series that
    come twice, and a last line that is not ended: the file is still being written.
    """
    if not data:
        return []
    if not data.endswith(b"\n"):
        raise ValueError("the last line is not ended")
    families: dict[str, _Family] = {}
    seen: set[tuple[str, tuple[str, ...], tuple[str, ...]]] = set()
    for number, raw in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        text = raw.strip(" \t\r")
        if not text:
            continue
        try:
            if text[0] == "#":
                _comment(families, text)
                continue
            line = _sample(families, text)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if (line.name, line.labels, line.values) in seen:
            raise ValueError(f"line {number}: this series has been there already")
        seen.add((line.name, line.labels, line.values))
    found: list[Line] = []
    for each in families.values():
        found += _histogram(each) if each.kind == "histogram" else each.lines
    return found


def _comment(families: dict[str, _Family], text: str) -> None:
    words = text[1:].split(None, 2)
    if len(words) < 2 or words[0] not in {"HELP", "TYPE"}:  # noqa: PLR2004 - word and name
        return
    name, rest = words[1], words[2] if len(words) > 2 else ""  # noqa: PLR2004
    if not _NAME.fullmatch(name):
        raise ValueError("this is no metric name")
    known = families.setdefault(name, _Family(name))
    if words[0] == "HELP":
        if known.help is not None:
            raise ValueError("a second HELP of the same metric")
        known.help = _unescape(rest)
        known.lines = [line._replace(help=known.help) for line in known.lines]
        return
    if known.kind is not None:
        raise ValueError("a second TYPE of the same metric, or one after its samples")
    if rest not in KINDS:
        raise ValueError("there is no such type")
    known.kind = rest


def _sample(families: dict[str, _Family], text: str) -> Line:
    match = _NAME.match(text)
    if match is None:
        raise ValueError("this is no metric name")
    name, position = match[0], match.end()
    pairs: dict[str, str] = {}
    rest = text[position:].lstrip(" \t")
    if rest.startswith("{"):
        rest = _labels(rest, pairs)
    elif rest and len(rest) == len(text) - position:
        raise ValueError("this is no metric name")
    words = rest.split()
    if not words:
        raise ValueError("there is no value")
    if len(words) > 1:
        raise ValueError("timestamps are refused: Prometheus gives the time of the scrape")
    known = _family(families, name)
    if known.kind is None:
        known.kind = "untyped"
    _check(known, name, pairs)
    labels = tuple(sorted(pairs))
    line = Line(
        known.name, name, known.kind, known.help,
        labels, tuple([pairs[label] for label in labels]), _number(words[0]),
    )  # fmt: skip
    known.lines.append(line)
    return line


def _labels(text: str, pairs: dict[str, str]) -> str:
    """Take the labels up to the closing brace; give what follows."""
    position = 1
    while match := _LABEL.match(text, position):
        label, value = match.groups()
        if label in pairs:
            raise ValueError("a label comes twice")
        pairs[label] = _unescape(value) if "\\" in value else value
        position = match.end()
        if text[position : position + 1] != ",":
            break
        position += 1
    rest = text[position:].lstrip(" \t")
    if not rest.startswith("}"):
        raise ValueError("the labels are malformed")
    for label in [label for label, value in pairs.items() if not value]:
        del pairs[label]
    return rest[1:]


def _family(families: dict[str, _Family], name: str) -> _Family:
    """Give the metric that a sample is of: a histogram or a summary has samples of other names."""
    if name not in families:
        for suffix, kinds in _SUFFIXES:
            known = families.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
            if known is not None and known.kind in kinds:
                return known
    return families.setdefault(name, _Family(name))


_SUFFIXES: Final = (
    ("_bucket", ("histogram",)),
    ("_count", ("histogram", "summary")),
    ("_sum", ("histogram", "summary")),
)


def _check(known: _Family, name: str, pairs: dict[str, str]) -> None:
    """Refuse samples that a histogram or a summary cannot have; canonise their bounds."""
    if known.kind not in {"histogram", "summary"}:
        return
    plain = name == known.name
    bound = "le" if known.kind == "histogram" else "quantile"
    if known.kind == "histogram" and plain:
        raise ValueError("a histogram has buckets, a sum and a count")
    if plain or name.endswith("_bucket"):
        if bound not in pairs:
            raise ValueError(f"there is no label {bound}")
        pairs[bound] = _bound(float(_number(pairs[bound])))
        number = float(pairs[bound])
        if known.kind == "summary" and not 0 <= number <= 1:
            raise ValueError("a quantile is from 0 to 1")
        if math.isnan(number):
            raise ValueError("a bucket has no bound")


def _histogram(known: _Family) -> Iterator[Line]:
    """Give a histogram's lines with buckets sorted, and the one of all that OpenMetrics wants."""
    series: dict[tuple[tuple[str, str], ...], dict[str, Line]] = {}
    for line in known.lines:
        pairs = dict(zip(line.labels, line.values, strict=True))
        bound = pairs.pop("le", line.name) if line.name.endswith("_bucket") else line.name
        series.setdefault(tuple(pairs.items()), {})[bound] = line
    count, total = f"{known.name}_count", f"{known.name}_sum"
    for pairs_of, lines in series.items():
        counted = lines.pop(count, None)
        summed = lines.pop(total, None)
        every = lines.get(_INFINITE) or counted
        if every is None:
            raise ValueError(f"{known.name} has neither a count nor a bucket of all")
        labels = dict(pairs_of)
        lines[_INFINITE] = _line(known, "_bucket", {**labels, "le": _INFINITE}, every.value)
        below = 0.0
        for bound in sorted(lines, key=float):
            if not lines[bound].value >= below:
                raise ValueError(f"{known.name} has buckets that hold less than smaller ones")
            below = lines[bound].value
            yield lines[bound]
        if summed is not None:
            yield summed
        yield _line(known, "_count", labels, every.value)


def _line(known: _Family, suffix: str, pairs: dict[str, str], value: float) -> Line:
    labels = tuple(sorted(pairs))
    values = tuple([pairs[label] for label in labels])
    return Line(
        known.name, known.name + suffix, "histogram", known.help, labels, values, value
    )  # fmt: skip


def _number(text: str) -> float:
    digits = text[1:] if text[:1] in {"+", "-"} else text
    if digits.isdecimal() and digits.isascii() and len(digits) <= _DIGITS:
        return int(text)
    if "_" in text or not text.isascii():
        raise ValueError("the value is no number")
    try:
        return float(text)
    except ValueError:
        raise ValueError("the value is no number") from None


def _bound(number: float) -> str:
    return {"inf": _INFINITE, "-inf": "-Inf", "nan": "NaN"}.get(repr(number), repr(number))


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], text)


@dataclass(frozen=True, slots=True)
class File:
    """One file as it was read: ``error`` says why it was refused, and then it has no lines.

    ``version`` is another one whenever the file has been changed.
    """

    path: str
    version: tuple[int, ...]
    mtime_seconds: int
    lines: tuple[Line, ...] = ()
    error: str | None = None


def read(  # noqa: PLR0911 - each refusal ends it
    path: str, *, shown: str | None = None, known: File | None = None
) -> File:
    """Read a file, or give ``known`` where it is still the same; ``shown`` is its name for people.

    What is no regular file, too large or malformed is refused. Raises nothing.
    """
    shown = path if shown is None else shown
    try:
        # Not to wait for a FIFO's writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        return File(shown, (error.errno or 0,), 0, error=_why(error))
    try:
        about = os.fstat(fd)
        version = (about.st_mtime_ns, about.st_size, about.st_ino, about.st_dev)
        if known is not None and known.version == version:
            return known
        mtime = about.st_mtime_ns // 1_000_000_000
        if not stat.S_ISREG(about.st_mode):
            return File(shown, version, mtime, error="it is no regular file")
        if about.st_size > MOST_BYTES:
            return File(shown, version, mtime, error=f"it is larger than {MOST_BYTES >> 20} MiB")
        lines = tuple(parse(_whole(fd, MOST_BYTES)))
    except OSError as error:
        return File(shown, (error.errno or 0,), 0, error=_why(error))
    except ValueError as error:
        return File(shown, version, mtime, error=str(error))
    finally:
        os.close(fd)
    return File(shown, version, mtime, lines)


def _whole(fd: int, most: int) -> bytes:
    parts, left = [], most + 1
    while left and (part := os.read(fd, left)):
        parts.append(part)
        left -= len(part)
    if not left:
        raise ValueError(f"it is larger than {most >> 20} MiB")
    return b"".join(parts)


def _why(error: OSError) -> str:
    return (error.strerror or os.strerror(error.errno or errno.EIO)).lower()


@dataclass(slots=True)
class Textfiles:
    """The ``*.prom`` files of some folders; each is parsed again only when it has changed."""

    paths: Paths = field(default_factory=Paths)
    _known: dict[str, File] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one that has read nothing yet."""
        return cls(paths)

    def read(self, folders: Iterable[str]) -> tuple[list[File], list[str]]:
        """Give the files, sorted within each folder, and the folders that cannot be listed.

        A folder may be a pattern (``/srv/*/metrics``), as glob(7) has it; one that matches
        nothing is told as one that cannot be listed.
        """
        found: dict[str, File] = {}
        missing = []
        for folder in dict.fromkeys(folders):
            for each in self._matching(folder):
                try:
                    names = sorted(os.listdir(self.paths.rooted(each)))  # noqa: PTH208 - hot
                except OSError:
                    missing.append(each)
                    continue
                for name in names:
                    if name.endswith(".prom"):
                        shown = f"{each.rstrip('/')}/{name}"
                        found.setdefault(shown, self._file(shown))
        self._known = found
        return list(found.values()), missing

    def _matching(self, folder: str) -> list[str]:
        if not any(sign in folder for sign in "*?["):
            return [folder]
        root = self.paths.root
        matching = sorted(f"/{path.relative_to(root)}" for path in root.glob(folder.lstrip("/")))
        return matching or [folder]

    def _file(self, shown: str) -> File:
        before = self._known.get(shown)
        found = read(str(self.paths.rooted(shown)), shown=shown, known=before)
        if found.error is not None and (before is None or before.error != found.error):
            log.warning("textfile.refused", extra={"file": shown, "error": found.error})
        return found
