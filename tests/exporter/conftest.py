"""A certificate authority for tests, and the certificates that it gives."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from narthex_exporter.transport.identity import Role, spiffe_uri
from narthex_exporter.transport.tls import TLSFiles

CLUSTER = "0123456789abcdef"
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass
class Authority:
    """A root CA whose leaves can be made wrong in one way each."""

    folder: Path
    name: str = "Narthex test CA"
    constrained_to: str = ""
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(self.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=9))
            .not_valid_after(now + dt.timedelta(days=9))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
            )
        )
        if self.constrained_to:
            names = [x509.UniformResourceIdentifier(self.constrained_to)]
            builder = builder.add_extension(
                x509.NameConstraints(permitted_subtrees=names, excluded_subtrees=None),
                critical=True,
            )
        self.certificate = builder.sign(self.key, hashes.SHA256())
        self.file = self.folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def leaf(
        self,
        role: Role = Role.SCRAPE,
        name: str = "one",
        *,
        cluster: str = CLUSTER,
        uris: Sequence[str] | None = None,
        ca: bool = False,
        cert_sign: bool = False,
        usages: Sequence[x509.ObjectIdentifier] = BOTH,
        starts: dt.timedelta = dt.timedelta(minutes=-5),
        ends: dt.timedelta = dt.timedelta(hours=1),
        self_signed: bool = False,
        file: str = "",
    ) -> TLSFiles:
        """Give a certificate for one role; every argument but the first two makes it odd."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            *(x509.IPAddress(ipaddress.ip_address(f"127.0.0.{n}")) for n in (1, 2)),
        ]
        own = [spiffe_uri(cluster, role, name)] if uris is None else uris
        names += map(x509.UniformResourceIdentifier, own)
        issuer_key = key if self_signed else self.key
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self_signed else self.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + starts)
            .not_valid_after(now + ends)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(_usage(ca=cert_sign), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(issuer_key, hashes.SHA256())
        )
        stem = file or f"{role}-{name}"
        files = TLSFiles(
            cert=self.folder / f"{stem}.pem", key=self.folder / f"{stem}.key", ca=self.file
        )
        files.cert.write_bytes(built.public_bytes(serialization.Encoding.PEM))
        files.key.touch(mode=0o600)
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=ca,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another CA."""
    return Authority(tmp_path_factory.mktemp("stranger"), name="Another CA")


@pytest.fixture(scope="session")
def constrained(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that may name one cluster only."""
    return Authority(
        tmp_path_factory.mktemp("constrained"), constrained_to=f"{CLUSTER}.narthex.internal"
    )
