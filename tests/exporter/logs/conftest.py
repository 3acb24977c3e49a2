"""Runs a real log store, plain or by TLS, for the shipper to push to."""

import datetime as dt
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lokilike import Client
from narthex_exporter.transport.identity import Role, spiffe_uri
from narthex_exporter.transport.tls import TLSFiles
from narthex_logstore.app import Config, running

CLUSTER = "0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Client]:
    with running(Config(port=0, path=tmp_path / "store")) as started:
        client = Client(f"http://127.0.0.1:{started.port}")
        with client.session:
            yield client


@dataclass
class Authority:
    """A CA that makes the certificates of a gateway and a node."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        self.file = self.folder / "ca.pem"
        usage = _usage(signs_certificates=True)
        builder = self._builder(self.name, self.key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        made = builder.add_extension(usage, critical=True).sign(self.key, hashes.SHA256())
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(self, role: Role, name: str) -> TLSFiles:
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier(spiffe_uri(CLUSTER, role, name)),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            ]
        )
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        made = (
            self._builder(x509.Name([]), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(names, critical=True)
            .add_extension(issuer, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        files = TLSFiles(
            cert=self.folder / f"{name}.pem", key=self.folder / f"{name}.key", ca=self.file
        )
        files.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        files.key.touch(mode=0o600)
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(tz=dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")
