"""Read what an X.509 certificate says of itself, without the library that could check it.

A strict reader of DER (X.690) for RFC 5280's Certificate: whom it names, what it is for and how
long it holds. Nothing here says that a certificate is to be trusted: OpenSSL does, before. It
exists because cryptography takes eight MiB of memory on each node; a test proves both equal.
"""

import binascii
import datetime as dt
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

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
_URI_NAME: Final = 0x86
_IP_NAME: Final = 0x87
_BASIC_CONSTRAINTS: Final = b"\x55\x1d\x13"  # 2.5.29.19
_KEY_USAGE: Final = b"\x55\x1d\x0f"  # 2.5.29.15
_CERT_SIGN: Final = 0x04
_UTC: Final = re.compile(rb"\d{12}Z")
_GENERALIZED: Final = re.compile(rb"\d{14}Z")
_CENTURY: Final = 50  # RFC 5280, 4.1.2.5.1: two digits from 50 on are of the 20th century
_LONG: Final = 0x80
_LONGEST_OID: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Whom a certificate names, what for, and from when to when it holds.

    ``ca`` and ``cert_sign`` are None where it has no BasicConstraints, or no KeyUsage. ``uris``
    are those among the alternative names, as often as they stand there.
    """

    serial: int
    subject: str
    not_before: dt.datetime
    not_after: dt.datetime
    alternative_names: frozenset[str]
    uris: tuple[str, ...]
    ca: bool | None
    cert_sign: bool | None


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
    serial = int.from_bytes(signed.take(_INTEGER), signed=True)
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
    extensions: dict[bytes, bytes] = {}
    if signed.next_tag() == _EXTENSIONS:
        extensions = _extensions(signed.take(_EXTENSIONS))
    signed.end()
    names = _alternative_names(extensions)
    return Certificate(
        serial=serial,
        subject=subject,
        not_before=not_before,
        not_after=not_after,
        alternative_names=frozenset(name for _, name in names),
        uris=tuple(name for tag, name in names if tag == _URI_NAME),
        ca=_is_authority(extensions),
        cert_sign=_may_sign(extensions),
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


def _extensions(data: bytes) -> dict[bytes, bytes]:
    """Give each extension's value by its kind."""
    outer = _Reader(data)
    found: dict[bytes, bytes] = {}
    for tag, extension in _Reader(outer.take(_SEQUENCE)).rest():
        if tag != _SEQUENCE:
            raise ValueError("it has an extension that is none")
        parts = _Reader(extension)
        kind = parts.take(_OID)
        if parts.next_tag() == _BOOLEAN:
            _boolean(parts)
        if kind in found:
            raise ValueError("it has an extension twice")
        found[kind] = parts.take(_OCTETS)
        parts.end()
    outer.end()
    return found


def _alternative_names(extensions: dict[bytes, bytes]) -> list[tuple[int, str]]:
    if _ALTERNATIVE_NAMES not in extensions:
        return []
    whole = _Reader(extensions[_ALTERNATIVE_NAMES])
    names = _Reader(whole.take(_SEQUENCE))
    whole.end()
    return [
        (tag, str(ipaddress.ip_address(value)) if tag == _IP_NAME else value.decode("ascii"))
        for tag, value in names.rest()
        if tag == _IP_NAME or tag in _TEXT_NAMES
    ]


def _is_authority(extensions: dict[bytes, bytes]) -> bool | None:
    """Read BasicConstraints, RFC 5280, 4.2.1.9."""
    if _BASIC_CONSTRAINTS not in extensions:
        return None
    whole = _Reader(extensions[_BASIC_CONSTRAINTS])
    parts = _Reader(whole.take(_SEQUENCE))
    whole.end()
    found = _boolean(parts) if parts.next_tag() == _BOOLEAN else False
    if parts.next_tag() == _INTEGER:
        parts.take(_INTEGER)
    parts.end()
    return found


def _may_sign(extensions: dict[bytes, bytes]) -> bool | None:
    """Read keyCertSign, the sixth bit of KeyUsage, RFC 5280, 4.2.1.3."""
    if _KEY_USAGE not in extensions:
        return None
    whole = _Reader(extensions[_KEY_USAGE])
    bits = whole.take(_BITS)
    whole.end()
    if len(bits) < 2 or bits[0] > 7:  # noqa: PLR2004 - how many bits are unused, and some bits
        raise ValueError("it has a key usage that is none")
    return bool(bits[1] & _CERT_SIGN)


def _boolean(parts: _Reader) -> bool:
    value = parts.take(_BOOLEAN)
    if value not in {b"\x00", b"\xff"}:
        raise ValueError("it has a truth value that DER forbids")
    return value == b"\xff"
