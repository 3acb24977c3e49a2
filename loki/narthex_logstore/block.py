"""Pack the entries of one stream into a compressed block and unpack them.

Times and lengths, lines, and metadata are compressed apart, so that counting touches no line and
searching a text touches neither. Lines end in a newline so that a search cannot match across two.
"""

import json
import sys
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter
from typing import Final

import cramjam

from narthex_logstore.model import Entry, Labels
from narthex_logstore.regex import Pattern

TARGET_BYTES: Final = 512 << 10
_by_time: Final = attrgetter("ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is known of a block without reading it. ``raw_bytes`` counts lines only."""

    id: int
    min_ts: int
    max_ts: int
    entries: int
    raw_bytes: int
    has_meta: bool

    @property
    def weight(self) -> int:
        """Its size for merging: empty lines weigh too."""
        return self.raw_bytes + 16 * self.entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A block as it is stored."""

    min_ts: int
    max_ts: int
    entries: int
    raw_bytes: int
    index: bytes
    lines: bytes
    meta: bytes


def pack(entries: Sequence[Entry], *, level: int = 1) -> Packed:
    """Pack entries, sorted by time; those of one time keep their order."""
    ordered = sorted(entries, key=_by_time)
    first = ordered[0].ts
    times = array("q", (each.ts - first for each in ordered))
    lengths = array("I", (len(each.line) for each in ordered))
    return Packed(
        min_ts=first,
        max_ts=ordered[-1].ts,
        entries=len(ordered),
        raw_bytes=sum(lengths),
        index=_squeeze(_little(times) + _little(lengths), level),
        lines=_squeeze(b"\n".join([*(each.line for each in ordered), b""]), level),
        meta=_pack_meta(ordered, level),
    )


@dataclass(slots=True)
class Block:
    """An unpacked block; lines and metadata are unpacked when they are asked for."""

    packed: Packed
    times: "array[int]" = field(init=False)
    _lengths: "array[int]" = field(init=False)
    _ends: list[int] = field(default_factory=list, init=False)
    _text: bytes | None = field(default=None, init=False)
    _sets: list[Labels] | None = field(default=None, init=False)
    _at: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        raw = _inflate(self.packed.index)
        count = self.packed.entries
        self.times = array("q", raw[: 8 * count])
        self._lengths = array("I", raw[8 * count :])
        if sys.byteorder == "big":
            self.times.byteswap()
            self._lengths.byteswap()

    @property
    def lengths(self) -> "array[int]":
        """The lines' lengths in bytes."""
        return self._lengths

    @property
    def text(self) -> bytes:
        """All lines, each ended by a newline."""
        if self._text is None:
            self._text = _inflate(self.packed.lines)
        return self._text

    @property
    def ends(self) -> list[int]:
        """Where in the text each line's newline stands, plus one."""
        if not self._ends:
            self._ends = list(accumulate(length + 1 for length in self._lengths))
        return self._ends

    def time(self, index: int) -> int:
        """Give an entry's time in Unix nanoseconds."""
        return self.packed.min_ts + self.times[index]

    def line(self, index: int) -> bytes:
        """Give an entry's line."""
        end = self.ends[index]
        return self.text[end - 1 - self._lengths[index] : end - 1]

    def meta(self, index: int) -> Labels:
        """Give an entry's metadata."""
        if self._sets is None:
            self._sets, self._at = _unpack_meta(self.packed.meta)
        return self._sets[self._at[index]] if self._sets else ()

    def meta_counts(self, first: int, end: int) -> Iterator[tuple[Labels, int]]:
        """Count the entries of a range by their metadata."""
        if self._sets is None:
            self._sets, self._at = _unpack_meta(self.packed.meta)
        if not self._sets:
            yield (), end - first
            return
        for at, count in Counter(self._at[first:end]).items():
            yield self._sets[at], count

    def entry(self, index: int) -> Entry:
        """Give an entry."""
        return Entry(self.time(index), self.line(index), self.meta(index))

    @property
    def one_line_each(self) -> bool:
        """Tell whether no entry holds a newline of its own."""
        return self.text.count(b"\n") == self.packed.entries

    def holding(self, needle: bytes) -> Iterator[int]:
        """Name the entries whose line may contain some bytes: no other does."""
        return self._hits(lambda start: self.text.find(needle, start))

    def matching(self, pattern: Pattern) -> Iterator[int]:
        """Name the entries that a pattern finds which never matches a newline."""

        def find(start: int) -> int:
            match = pattern.search(self.text, start)
            return -1 if match is None else match.start()

        return self._hits(find)

    def _hits(self, find: Callable[[int], int]) -> Iterator[int]:
        position = find(0)
        while 0 <= position < len(self.text):
            index = bisect_right(self.ends, position)
            yield index
            position = find(self.ends[index])


def _pack_meta(entries: Sequence[Entry], level: int) -> bytes:
    if not any(each.meta for each in entries):
        return b""
    known: dict[Labels, int] = {}
    at = [known.setdefault(each.meta, len(known)) for each in entries]
    return _squeeze(json.dumps([list(known), at], separators=(",", ":")).encode(), level)


def _unpack_meta(data: bytes) -> tuple[list[Labels], list[int]]:
    if not data:
        return [], []
    sets, at = json.loads(_inflate(data))
    return [tuple((name, value) for name, value in each) for each in sets], at


def _little(values: "array[int]") -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def _squeeze(data: bytes, level: int) -> bytes:
    return bytes(cramjam.zstd.compress(data, level=level))


def _inflate(data: bytes) -> bytes:
    return bytes(cramjam.zstd.decompress(data))
