"""Turn the body of a push into entries, and refuse those that Loki would refuse."""

import datetime as dt
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import cramjam

from narthex_logstore.levels import detect
from narthex_logstore.logql.parser import parse_stream
from narthex_logstore.model import (
    SECOND,
    Entry,
    Labels,
    Limits,
    PushError,
    QueryError,
    as_labels,
    format_labels,
)
from narthex_logstore.protobuf import read_push_request

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_TS: Final = (1 << 63) - 1
_REASONS_TOLD: Final = 10
_Raw = Iterator[tuple[dict[str, str], list[Entry]]]


@dataclass(slots=True)
class Batch:
    """What of a push may be stored, and why the rest may not."""

    entries: dict[Labels, list[Entry]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    refused_entries: int = 0

    def refuse(self, why: str, *, entries: int = 1) -> None:
        """Note a refusal; only the first reasons are told."""
        self.refused_entries += entries
        if len(self.refused) < _REASONS_TOLD:
            self.refused.append(why)


def read_push(body: bytes, *, content_type: str, encoding: str, limits: Limits) -> _Raw:
    """Read a push in one of Loki's formats. Raises PushError."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        return _read_json(inflate(body, encoding, limits.inflated_bytes))
    if kind == "application/x-protobuf":
        return _read_protobuf(_unsnap(body, limits.inflated_bytes))
    raise PushError(
        f"Content-Type {content_type[:80]!r}: send application/json or application/x-protobuf",
        status=415,
    )


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo Content-Encoding, up to ``limit`` bytes. Raises PushError."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise PushError(f"Content-Encoding {encoding[:40]!r} not supported", status=415)
    reader = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        data = reader.decompress(body, limit + 1)
    except zlib.error as error:
        raise PushError(f"cannot decompress the push: {error}") from error
    if len(data) > limit:
        raise PushError(f"the push inflates to more than {limit} bytes", status=413)
    if not reader.eof:
        raise PushError("cannot decompress the push: it is cut off")
    return data


def validate(raw: _Raw, *, limits: Limits, now_ns: int) -> Batch:
    """Choose what may be stored. Raises PushError where nothing can be told apart."""
    batch = Batch()
    for pairs, entries in raw:
        labels = as_labels(pairs)
        if why := _bad_labels(labels, limits):
            batch.refuse(why, entries=len(entries))
            continue
        kept = batch.entries.setdefault(labels, [])
        for entry in entries:
            why = _bad_entry(labels, entry, limits, now_ns)
            if why:
                batch.refuse(why)
            else:
                kept.append(detect(entry, labels))
        if not kept:
            del batch.entries[labels]
    return batch


def too_late(batch: Batch, late: Mapping[Labels, Sequence[Entry]]) -> None:
    """Note entries that came too far behind their stream."""
    for labels, entries in late.items():
        for entry in entries:
            batch.refuse(
                f"entry with timestamp {_instant(entry.ts)} ignored, reason: "
                f"'entry too far behind', for stream: {format_labels(labels)}"
            )


def _read_json(body: bytes) -> _Raw:
    try:
        return iter([_json_stream(each) for each in json.loads(body)["streams"]])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PushError(f"couldn't parse push request: {str(error)[:200]}") from error


def _json_stream(stream: Any) -> tuple[dict[str, str], list[Entry]]:
    labels = _strings(stream["stream"])
    return labels, [_json_entry(value) for value in stream["values"]]


def _json_entry(value: Any) -> Entry:
    if not isinstance(value, list) or len(value) not in (2, 3):
        raise TypeError('a value must be ["<nanoseconds>", "<line>", {metadata}]')
    ts, line = value[0], value[1]
    if not isinstance(ts, str) or not isinstance(line, str):
        raise TypeError("time and line must be strings")
    if not ts.isascii() or not ts.isdigit():
        raise TypeError(f"not Unix nanoseconds: {ts[:40]!r}")
    meta = as_labels(_strings(value[2])) if len(value) == 3 else ()  # noqa: PLR2004
    return Entry(int(ts[:25]), _utf8(line), meta)


def _strings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise TypeError("labels and metadata must be strings by name")
    return {_clean(name): _clean(text) for name, text in value.items()}


def _clean(text: str) -> str:
    return text if text.isascii() else _utf8(text).decode()


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can spell: Go reads it as U+FFFD too.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _read_protobuf(body: bytes) -> _Raw:
    found = []
    for text, entries in read_push_request(body):
        try:
            found.append((dict(_stream_labels(text)), entries))
        except QueryError as error:
            raise PushError(f"error parsing labels: {error}") from error
    return iter(found)


@lru_cache(maxsize=4096)
def _stream_labels(text: str) -> Labels:
    return as_labels(parse_stream(text))


def _unsnap(body: bytes, limit: int) -> bytes:
    try:
        # The length stands in front: it is checked before memory is taken.
        if cramjam.snappy.decompress_raw_len(body) > limit:
            raise PushError(f"the push inflates to more than {limit} bytes", status=413)
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as error:
        raise PushError(f"cannot decompress the push: {error}") from error


def _bad_labels(labels: Labels, limits: Limits) -> str:
    shown = format_labels(labels)[:300]
    if not labels:
        return "error at least one label pair is required per stream"
    if len(labels) > limits.labels_per_stream:
        return (
            f"entry for stream '{shown}' has {len(labels)} label names; "
            f"limit {limits.labels_per_stream}"
        )
    for name, value in labels:
        if not _NAME.fullmatch(name):
            return f"stream '{shown}' has a label name that is not valid: {name[:80]!r}"
        if len(name) > limits.label_name_bytes:
            return f"stream '{shown}' has label name too long: '{name[:80]}'"
        if len(value) > limits.label_value_bytes:
            return f"stream '{shown}' has label value too long: '{value[:80]}'"
    return ""


def _bad_entry(labels: Labels, entry: Entry, limits: Limits, now_ns: int) -> str:
    if len(entry.line) > limits.line_bytes:
        return (
            f"Max entry size '{limits.line_bytes}' bytes exceeded for stream "
            f"'{format_labels(labels)}' while adding an entry with length "
            f"'{len(entry.line)}' bytes"
        )
    if entry.ts < now_ns - limits.max_age_ns:
        return (
            f"entry for stream '{format_labels(labels)}' has timestamp too old: "
            f"{_instant(entry.ts)}, oldest acceptable timestamp is: "
            f"{_instant(now_ns - limits.max_age_ns)}"
        )
    if entry.ts > min(now_ns + limits.max_ahead_ns, _MAX_TS):
        return (
            f"entry for stream '{format_labels(labels)}' has timestamp too new: "
            f"{_instant(entry.ts)}"
        )
    if entry.meta:
        size = sum(len(name) + len(value) for name, value in entry.meta)
        if len(entry.meta) > limits.metadata_entries or size > limits.metadata_bytes:
            return (
                f"stream '{format_labels(labels)}' has structured metadata too large: "
                f"{len(entry.meta)} pairs, {size} bytes"
            )
    return ""


def _instant(ts: int) -> str:
    try:
        return dt.datetime.fromtimestamp(ts // SECOND, tz=dt.UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return f"{ts} ns"
