"""Read what an X.509 certificate says of itself, without the library that could check it.

A strict reader of DER (X.690) for RFC 5280's Certificate: whom it names and how long it holds.
Nothing here says that a certificate is to be trusted.
"""

import binascii
import datetime as dt
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from narthex_exporter.sources.place import Paths

# A chain of a few certificates is some 10 kB; what is bigger is no certificate file.
_MOST_BYTES: Final = 256 << 10
_MOST_FILES: Final = 4096
_PEM: Final = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----[ \t]*\r?\n([A-Za-z0-9+/=\s]*?)-----END "
)
_INTEGER, _BITS, _OCTETS, _OID = 0x02, 0x03, 0x04, 0x06
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_SEQUENCE, _SET = 0x30, 0x31
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_ISSUER_ID, _SUBJECT_ID = 0x81, 0x82
_BOOLEAN: Final = 0x01
# X.680's kinds of string, as Python decodes them.
_STRINGS: Final = {
    0x0C: "utf-8",
    0x12: "ascii",
    0x13: "ascii",
    0x14: "latin-1",
    0x16: "ascii",
    0x1A: "ascii",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
# RFC 4514, section 3; any other type is written as its number.
_SHORT: Final = {
    "2.5.4.3": "CN",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.6": "C",
    "2.5.4.9": "STREET",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
}
_ALTERNATIVE_NAMES: Final = b"\x55\x1d\x11"  # 2.5.29.17
# The kinds of GeneralName that are text: rfc822Name, dNSName, uniformResourceIdentifier.
_TEXT_NAMES: Final = frozenset({0x81, 0x82, 0x86})
_IP_NAME: Final = 0x87
_UTC: Final = re.compile(rb"\d{12}Z")
_GENERALIZED: Final = re.compile(rb"\d{14}Z")
_CENTURY: Final = 50  # RFC 5280, 4.1.2.5.1: two digits from 50 on are of the 20th century
_LONG: Final = 0x80
_LONGEST_OID: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Whom a certificate names, and from when to when it holds."""

    subject: str
    not_before: dt.datetime
    not_after: dt.datetime
    alternative_names: frozenset[str]


@dataclass(slots=True)
class CertificateFiles:
    """The certificates in files, each parsed again only when its file changes."""

    _known: dict[Path, tuple[tuple[int, int, int], Certificate | None]] = field(
        default_factory=dict, init=False
    )

    @classmethod
    def of(cls, _paths: Paths) -> Self:
        """Make one that has read nothing."""
        return cls()

    def get(self, path: Path) -> Certificate | None:
        """Give the first certificate in a file, None where there is none that can be read."""
        try:
            told = path.stat()
        except OSError:
            self._known.pop(path, None)
            return None
        stamp = (told.st_mtime_ns, told.st_ino, told.st_size)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            try:
                known = (stamp, load(path))
            except (OSError, ValueError):
                known = (stamp, None)
            if len(self._known) >= _MOST_FILES:
                self._known.clear()
            self._known[path] = known
        return known[1]


def load(path: Path) -> Certificate:
    """Read the first certificate of a PEM or DER file. Raises OSError, ValueError."""
    with path.open("rb") as file:
        return parse(file.read(_MOST_BYTES))


def parse(data: bytes) -> Certificate:
    """Parse PEM, of which the first certificate counts, or DER. Raises ValueError."""
    if data[:1] == b"\x30":
        return parse_der(data)
    found = _PEM.search(data)
    if found is None:
        raise ValueError("there is no certificate in it")
    try:
        return parse_der(binascii.a2b_base64(b"".join(found[1].split()), strict_mode=True))
    except binascii.Error as error:
        raise ValueError(f"its base64 is broken: {error}") from error


def parse_der(data: bytes) -> Certificate:
    """Parse one certificate in DER. Raises ValueError."""
    whole = _Reader(data)
    outer = _Reader(whole.take(_SEQUENCE))
    whole.end()
    signed = _Reader(outer.take(_SEQUENCE))
    outer.take(_SEQUENCE)
    outer.take(_BITS)
    outer.end()
    if signed.next_tag() == _VERSION:
        version = _Reader(signed.take(_VERSION))
        version.take(_INTEGER)
        version.end()
    signed.take(_INTEGER)
    signed.take(_SEQUENCE)
    _name(signed.take(_SEQUENCE))
    validity = _Reader(signed.take(_SEQUENCE))
    not_before, not_after = _time(*validity.any()), _time(*validity.any())
    validity.end()
    subject = _name(signed.take(_SEQUENCE))
    signed.take(_SEQUENCE)
    for unique in (_ISSUER_ID, _SUBJECT_ID):
        if signed.next_tag() == unique:
            signed.take(unique)
    names = frozenset[str]()
    if signed.next_tag() == _EXTENSIONS:
        names = _alternative_names(signed.take(_EXTENSIONS))
    signed.end()
    return Certificate(
        subject=subject, not_before=not_before, not_after=not_after, alternative_names=names
    )


class _Reader:
    """The values in one constructed value, one after the other."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def next_tag(self) -> int | None:
        """Give the tag of what comes, None at the end."""
        return self._data[self._at] if self._at < len(self._data) else None

    def any(self) -> tuple[int, bytes]:
        """Take the next value, whatever it is."""
        data, at = self._data, self._at
        if len(data) - at < 2:  # noqa: PLR2004 - a tag and a length
            raise ValueError("it ends too early")
        tag, length = data[at], data[at + 1]
        at += 2
        if tag & 0x1F == 0x1F:  # noqa: PLR2004
            raise ValueError("it has a tag of several bytes")
        if length >= _LONG:
            octets = data[at : at + length - _LONG]
            at += length - _LONG
            # X.690, 10.1: definite, and as short as can be.
            if not octets or octets[0] == 0 or len(octets) != length - _LONG:
                raise ValueError("it has a length that DER forbids")
            length = int.from_bytes(octets)
            if length < _LONG:
                raise ValueError("it has a length that DER forbids")
        if length > len(data) - at:
            raise ValueError("it ends too early")
        self._at = at + length
        return tag, data[at : self._at]

    def take(self, wanted: int) -> bytes:
        """Take the next value, which has this tag."""
        tag, value = self.any()
        if tag != wanted:
            raise ValueError(f"it has tag {tag:#x} where {wanted:#x} is due")
        return value

    def rest(self) -> Iterator[tuple[int, bytes]]:
        """Take all that is left."""
        while self._at < len(self._data):
            yield self.any()

    def end(self) -> None:
        """Check that nothing is left."""
        if self._at != len(self._data):
            raise ValueError("there is more than a certificate holds")


def _time(tag: int, value: bytes) -> dt.datetime:
    """Read a Time as RFC 5280 allows it: in UTC, to the second."""
    if tag == _UTC_TIME and _UTC.fullmatch(value):
        text = value.decode("ascii")
        text = ("19" if int(text[:2]) >= _CENTURY else "20") + text
    elif tag == _GENERALIZED_TIME and _GENERALIZED.fullmatch(value):
        text = value.decode("ascii")
    else:
        raise ValueError("it has a time that RFC 5280 forbids")
    parts = [int(text[:4]), *(int(text[at : at + 2]) for at in range(4, 14, 2))]
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]  # six numbers


def _name(data: bytes) -> str:
    """Write a Name as RFC 4514 does: the last part first."""
    parts = []
    for tag, part in _Reader(data).rest():
        if tag != _SET or not part:
            raise ValueError("it has a name that is none")
        parts.append("+".join([_attribute(*each) for each in _Reader(part).rest()]))
    return ",".join(reversed(parts))


def _attribute(tag: int, data: bytes) -> str:
    if tag != _SEQUENCE:
        raise ValueError("it has a name that is none")
    pair = _Reader(data)
    kind = _dotted(pair.take(_OID))
    tag, value = pair.any()
    pair.end()
    if tag == _BITS:
        text = "#" + value[1:].hex().upper()
    elif tag in _STRINGS:
        text = _escaped(value.decode(_STRINGS[tag]))
    else:
        raise ValueError("it has a name of no kind of text")
    return f"{_SHORT.get(kind, kind)}={text}"


def _escaped(text: str) -> str:
    """Escape as RFC 4514, section 2.4, asks."""
    for letter in '\\",+;<>':
        text = text.replace(letter, "\\" + letter)
    text = text.replace("\0", "\\00")
    if text[:1] in {"#", " "}:
        text = "\\" + text
    if text.endswith(" "):
        text = text[:-1] + "\\ "
    return text


def _dotted(value: bytes) -> str:
    if not value or value[-1] & _LONG or len(value) > _LONGEST_OID:
        raise ValueError("it has an object identifier that is none")
    numbers, number = [], 0
    for octet in value:
        number = number << 7 | octet & 0x7F
        if not octet & _LONG:
            numbers.append(number)
            number = 0
    # X.690, 8.19.4: the first two are one number.
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))


def _alternative_names(data: bytes) -> frozenset[str]:
    outer = _Reader(data)
    found: dict[bytes, bytes] = {}
    for tag, extension in _Reader(outer.take(_SEQUENCE)).rest():
        if tag != _SEQUENCE:
            raise ValueError("it has an extension that is none")
        parts = _Reader(extension)
        kind = parts.take(_OID)
        if parts.next_tag() == _BOOLEAN:
            parts.take(_BOOLEAN)
        if kind in found:
            raise ValueError("it has an extension twice")
        found[kind] = parts.take(_OCTETS)
        parts.end()
    outer.end()
    if _ALTERNATIVE_NAMES not in found:
        return frozenset()
    whole = _Reader(found[_ALTERNATIVE_NAMES])
    names = _Reader(whole.take(_SEQUENCE))
    whole.end()
    return frozenset(
        str(ipaddress.ip_address(value)) if tag == _IP_NAME else value.decode("ascii")
        for tag, value in names.rest()
        if tag == _IP_NAME or tag in _TEXT_NAMES
    )
