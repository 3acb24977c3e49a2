"""Our reader of certificates says what the real library says, and breaks on nothing."""

import datetime as dt
import ipaddress
import random
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from narthex_exporter.sources.certificates import CertificateFiles, load, parse, parse_der

TEXTS = (
    "web-1.example.org",
    'a,b+c"d\\e<f>g;h',
    " leading and trailing ",
    "#hash",
    "Zürich, 東京 \U0001f600",
    "nul\0inside",
    "line\nfeed=x",
    "x" * 64,
)
OIDS = (
    NameOID.COMMON_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.LOCALITY_NAME,
    NameOID.STATE_OR_PROVINCE_NAME,
    NameOID.STREET_ADDRESS,
    NameOID.USER_ID,
    NameOID.GIVEN_NAME,
    x509.ObjectIdentifier("1.3.6.1.4.1.99999.300.1"),
    x509.ObjectIdentifier("2.999.1"),
)
KINDS = (_ASN1Type.UTF8String, _ASN1Type.BMPString, _ASN1Type.UniversalString)


@cache
def key(kind: int) -> Any:
    makers = (
        ed25519.Ed25519PrivateKey.generate,
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
        lambda: rsa.generate_private_key(65537, 2048),
    )
    return makers[kind]()


def attribute(dice: random.Random) -> x509.NameAttribute[Any]:
    if dice.random() < 0.1:
        return x509.NameAttribute(NameOID.COUNTRY_NAME, "CH")
    if dice.random() < 0.1:
        return x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@example.org")
    return x509.NameAttribute(dice.choice(OIDS), dice.choice(TEXTS), dice.choice(KINDS))


def name(dice: random.Random) -> x509.Name:
    parts = []
    for _ in range(dice.randrange(5)):
        found = {
            each.oid: each for each in (attribute(dice) for _ in range(dice.choice((1, 1, 3))))
        }
        parts.append(x509.RelativeDistinguishedName(found.values()))
    return x509.Name(parts)


def alternatives(dice: random.Random) -> list[x509.GeneralName]:
    every = [
        x509.DNSName("*.example.org"),
        x509.DNSName("xn--zrich-kva.example"),
        x509.RFC822Name("root@example.org"),
        x509.UniformResourceIdentifier("spiffe://narthex/node/1"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
        x509.IPAddress(ipaddress.ip_address("2001:db8::7")),
        x509.DirectoryName(x509.Name([])),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")),
    ]
    return dice.sample(every, dice.randrange(1, len(every)))


def generated(seed: int) -> x509.Certificate:
    dice = random.Random(seed)  # noqa: S311
    starts = dt.datetime(dice.randrange(1950, 2100), 2, 28, 23, 59, seed % 60, tzinfo=dt.UTC)
    signer = key(seed % 4)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(dice))
        .issuer_name(name(dice))
        .not_valid_before(starts)
        .not_valid_after(starts + dt.timedelta(days=dice.randrange(1, 40_000)))
        .serial_number(dice.randrange(1, 1 << 150))
        .public_key(signer.public_key())
    )
    if seed % 3:
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives(dice)), False)
    return builder.sign(signer, None if seed % 4 == 0 else hashes.SHA256())


def wanted_names(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    kinds = (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier)
    names = {text for kind in kinds for text in found.get_values_for_type(kind)}
    return names | {str(ip) for ip in found.get_values_for_type(x509.IPAddress)}


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_it_reads_what_the_library_reads(first: int) -> None:
    for seed in range(first, first + 50):
        certificate = generated(seed)
        found = parse_der(certificate.public_bytes(serialization.Encoding.DER))
        assert found.subject == certificate.subject.rfc4514_string()
        assert found.not_before == certificate.not_valid_before_utc
        assert found.not_after == certificate.not_valid_after_utc
        assert found.alternative_names == wanted_names(certificate)
        assert found == parse(certificate.public_bytes(serialization.Encoding.PEM))


def test_a_chain_begins_with_the_certificate_that_matters(tmp_path: Path) -> None:
    leaf, issuer = generated(1), generated(2)
    pem = serialization.Encoding.PEM
    private = key(1).private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "chain.pem"
    junk = "subject=CN = Zürich\r\n".encode()
    text = private + junk + leaf.public_bytes(pem) + junk + issuer.public_bytes(pem)
    path.write_bytes(text.replace(b"\n", b"\r\n"))
    assert load(path).subject == leaf.subject.rfc4514_string()
    path.write_bytes(leaf.public_bytes(serialization.Encoding.DER))
    assert load(path).subject == leaf.subject.rfc4514_string()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no certificate",
        b"\x30",
        b"\x30\x80\x00\x00",
        b"\x30\x00",
        b"\x30\x84\xff\xff\xff\xff",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nM===A\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMIIB",
        b"-----BEGIN PKCS7-----\nMIIB\n-----END PKCS7-----\n",
    ],
)
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(data)


def test_nothing_but_a_value_error_comes_of_spoilt_bytes() -> None:
    dice, began = random.Random(7), time.monotonic()  # noqa: S311
    whole = [generated(seed).public_bytes(serialization.Encoding.DER) for seed in range(1, 9)]
    refused = 0
    for _ in range(20_000):
        data = bytearray(dice.choice(whole))
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            parse_der(bytes(data[: dice.choice((len(data), dice.randrange(len(data))))]))
        except ValueError:
            refused += 1
    assert refused > 10_000
    assert time.monotonic() - began < 20


@pytest.mark.filterwarnings("ignore:.*disallowed by RFC 5280")
def test_what_the_library_reads_of_spoilt_bytes_is_what_we_read() -> None:
    dice = random.Random(8)  # noqa: S311
    whole = [generated(seed).public_bytes(serialization.Encoding.DER) for seed in range(1, 9)]
    for _ in range(3000):
        data = bytearray(dice.choice(whole))
        data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            found = parse_der(bytes(data))
            theirs = x509.load_der_x509_certificate(bytes(data))
            assert found.not_after == theirs.not_valid_after_utc
            assert found.subject == theirs.subject.rfc4514_string()
            assert found.alternative_names == wanted_names(theirs)
        except (ValueError, x509.DuplicateExtension):
            continue


def test_a_huge_file_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "huge.pem"
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\n" * 400_000)
    began = time.monotonic()
    with pytest.raises(ValueError, match="no certificate"):
        load(path)
    assert time.monotonic() - began < 1


def test_a_file_is_parsed_again_only_when_it_changed(tmp_path: Path) -> None:
    files, path = CertificateFiles(), tmp_path / "a.pem"
    assert files.get(path) is None
    pem = serialization.Encoding.PEM
    path.write_bytes(generated(1).public_bytes(pem))
    first = files.get(path)
    assert first is not None
    assert files.get(path) is first
    path.write_bytes(generated(2).public_bytes(pem))
    assert files.get(path) != first
    path.unlink()
    assert files.get(path) is None
