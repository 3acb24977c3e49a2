"""Tell from a peer's certificate who it is: one SPIFFE URI names cluster, role and id."""

import enum
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from narthex_exporter.contract.errors import NarthexError

TRUST_ROOT: Final = "narthex.internal"


class PeerError(NarthexError):
    """A peer's certificate does not say who it is, or says more than one thing."""


class Role(enum.StrEnum):
    """What a certificate lets its holder be."""

    NODE = "node"
    OPERATOR = "operator"
    SCRAPE = "scrape"
    SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a peer is. ``fingerprint`` is the SHA-256 of its certificate, as hex."""

    cluster: str
    role: Role
    id: str
    serial: int
    fingerprint: str

    @property
    def uri(self) -> str:
        """The SPIFFE id that the certificate carries."""
        return spiffe_uri(self.cluster, self.role, self.id)


# Nothing may stand before, between or after: no user, port, query or second path.
_URI: Final = re.compile(
    rf"spiffe://([a-z0-9-]+)\.{re.escape(TRUST_ROOT)}/({'|'.join(Role)})/([a-z0-9][a-z0-9-]{{0,62}})"
)


def spiffe_uri(cluster: str, role: Role, name: str) -> str:
    """Name a role in a cluster."""
    return f"spiffe://{cluster}.{TRUST_ROOT}/{role}/{name}"


def node_dns_name(cluster: str, node: str) -> str:
    """Name a node for TLS: what the operator demands of the certificate it meets."""
    return f"{node}.node.{cluster}.{TRUST_ROOT}"


def issued_by(der: bytes, ca: Path) -> bool:
    """Tell whether the authority in the file ``ca`` itself signed a certificate."""
    from cryptography import x509  # noqa: PLC0415 - as in identify
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    try:
        authority = x509.load_pem_x509_certificate(ca.read_bytes())
        x509.load_der_x509_certificate(der).verify_directly_issued_by(authority)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    return True


def identify(der: bytes, *, cluster: str | None = None) -> Identity:
    """Read an identity from a certificate that TLS has already verified.

    Demands a leaf (CA:FALSE, no keyCertSign) with exactly one URI name of our form, and of
    ``cluster`` where that is given. Raises PeerError.
    """
    # Megabytes that an exporter without such peers never needs.
    from cryptography import x509  # noqa: PLC0415

    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise PeerError(f"the peer's certificate is not one of ours: {error}") from error
    if constraints.ca or usage.key_cert_sign:
        raise PeerError("the peer shows a certificate authority where a leaf is due")
    if len(uris) != 1:
        raise PeerError(f"the peer's certificate names {len(uris)} URIs where one is due")
    found = _URI.fullmatch(uris[0])
    if found is None:
        raise PeerError(f"the peer's certificate names {uris[0]!r}, which is no identity of ours")
    domain, role, name = found.groups()
    if cluster is not None and domain != cluster:
        raise PeerError(f"the peer belongs to cluster {domain}, not {cluster}")
    return Identity(
        cluster=domain,
        role=Role(role),
        id=name,
        serial=certificate.serial_number,
        fingerprint=hashlib.sha256(der).hexdigest(),
    )
