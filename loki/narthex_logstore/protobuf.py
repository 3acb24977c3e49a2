"""Read Loki's PushRequest from protobuf: three nested messages, no more."""

from collections.abc import Iterator
from typing import Final

from narthex_logstore.model import SECOND, Entry, PushError

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_MAX_SHIFT: Final = 63
_SIGN: Final = 1 << 63


def read_push_request(data: bytes) -> Iterator[tuple[str, list[Entry]]]:
    """Give each stream's labels, as text, and its entries. Raises PushError.

    PushRequest{1: streams}, StreamAdapter{1: labels, 2: entries}, EntryAdapter{1: timestamp,
    2: line, 3: structured metadata}, Timestamp{1: seconds, 2: nanos},
    LabelPair{1: name, 2: value}.
    """
    for number, stream in _fields(memoryview(data)):
        if number == 1 and isinstance(stream, memoryview):
            labels, entries = "", []
            for inner, value in _fields(stream):
                if inner == 1 and isinstance(value, memoryview):
                    labels = _text(value)
                elif inner == 2 and isinstance(value, memoryview):  # noqa: PLR2004 - see above
                    entries.append(_entry(value))
            yield labels, entries


def _entry(data: memoryview) -> Entry:
    ts, line, meta = 0, b"", []
    for number, value in _fields(data):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            ts = _timestamp(value)
        elif number == 2:  # noqa: PLR2004 - see read_push_request
            line = bytes(value)
        elif number == 3:  # noqa: PLR2004
            meta.append(_pair(value))
    return Entry(ts, line, tuple(sorted(meta)))


def _timestamp(data: memoryview) -> int:
    parts = {1: 0, 2: 0}
    for number, value in _fields(data):
        if number in parts and isinstance(value, int):
            parts[number] = value - (1 << 64) if value & _SIGN else value
    return parts[1] * SECOND + parts[2]


def _pair(data: memoryview) -> tuple[str, str]:
    parts = {1: "", 2: ""}
    for number, value in _fields(data):
        if number in parts and isinstance(value, memoryview):
            parts[number] = _text(value)
    return parts[1], parts[2]


def _text(data: memoryview) -> str:
    return bytes(data).decode("utf-8", "replace")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, position = _varint(data, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise PushError("the push is not a protobuf message of Loki's")
        if position + length > len(data):
            raise PushError("the push ends within a protobuf message")
        yield key >> 3, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value & ((1 << 64) - 1), position
        shift += 7
        if shift > _MAX_SHIFT:
            break
    raise PushError("the push holds a number that does not end")
