"""Make the CA and the leaves that it signs: the one place that knows the profiles."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from narthex_exporter.transport.identity import TRUST_ROOT, Role, spiffe_uri
from narthex_operator.security.certificates import GENERATION_OID, encode_generation

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_CA_LIFETIME: Final = timedelta(days=3650)
# A peer's clock may be slow by this much.
_BACKDATE: Final = timedelta(minutes=5)
_SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH
_CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How long a role's certificate lives and what TLS ends it may be."""

    lifetime: timedelta
    usages: tuple[x509.ObjectIdentifier, ...]


PROFILES: Final = {
    Role.NODE: Profile(lifetime=timedelta(days=7), usages=(_SERVER, _CLIENT)),
    Role.OPERATOR: Profile(lifetime=timedelta(hours=24), usages=(_CLIENT,)),
    Role.SCRAPE: Profile(lifetime=timedelta(days=30), usages=(_CLIENT,)),
    Role.SERVER: Profile(lifetime=timedelta(days=90), usages=(_SERVER,)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A certificate to be made: every name in it is chosen here, none comes from a request."""

    role: Role
    id: str
    names: tuple[str, ...] = ()
    addresses: tuple[IPAddress, ...] = ()
    generation: int = 0


def make_ca(key: ec.EllipticCurvePrivateKey, cluster: str, *, now: datetime) -> x509.Certificate:
    """Make a root that can vouch for names under narthex.internal only."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"Narthex {cluster}")])
    permitted = [
        x509.DNSName(TRUST_ROOT),
        # RFC 5280 4.2.1.10: in URIs only a leading period covers subdomains.
        x509.UniformResourceIdentifier(f".{TRUST_ROOT}"),
    ]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def issue(
    leaf: Leaf,
    public_key: ec.EllipticCurvePublicKey,
    *,
    ca: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    cluster: str,
    now: datetime | None = None,
) -> x509.Certificate:
    """Sign a leaf."""
    now = now or datetime.now(tz=UTC)
    profile = PROFILES[leaf.role]
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(spiffe_uri(cluster, leaf.role, leaf.id)),
        *(x509.DNSName(name) for name in leaf.names),
        *(x509.IPAddress(address) for address in leaf.addresses),
    ]
    # No common name: where it looks like a host name OpenSSL holds it against the constraints.
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"Narthex {cluster}"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"{leaf.role}/{leaf.id}"[:64]),
        ]
    )
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(min(now + profile.lifetime, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(profile.usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority, critical=False)
    )
    if leaf.generation:
        value = encode_generation(leaf.generation)
        builder = builder.add_extension(
            x509.UnrecognizedExtension(GENERATION_OID, value), critical=False
        )
    return builder.sign(key, hashes.SHA256())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
