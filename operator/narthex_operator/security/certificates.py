"""Read from certificates what our own CA wrote into them."""

import base64
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

# An arc under 2.25 (a random UUID) belongs to whoever made it: see ITU-T X.667.
# Go, and so Prometheus, refuses a certificate with an arc of more than 31 bits in it.
GENERATION_OID: Final = x509.ObjectIdentifier("2.25.1751217768.1")
_MAX_PEM: Final = 8192


def encode_generation(number: int) -> bytes:
    """Write a DER INTEGER."""
    body = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
    return bytes([0x02, len(body)]) + body


def generation_of(certificate: x509.Certificate) -> int:
    """Tell which of its node's certificates this is, from 1; 0 when it does not say."""
    try:
        extension = certificate.extensions.get_extension_for_oid(GENERATION_OID)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return 0
    value = extension.value
    if not isinstance(value, x509.UnrecognizedExtension):
        return 0
    raw = value.value
    if len(raw) < 3 or raw[0] != 0x02 or raw[1] != len(raw) - 2:  # noqa: PLR2004 - DER INTEGER
        return 0
    return max(0, int.from_bytes(raw[2:], "big", signed=True))


def read_csr(pem: str) -> x509.CertificateSigningRequest:
    """Read a request for a P-256 key that signs for itself. Raises ValueError."""
    if len(pem) > _MAX_PEM:
        raise ValueError("the certificate request is too long")
    csr = x509.load_pem_x509_csr(pem.encode("ascii"))
    key = csr.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the certificate request is not for a P-256 key")  # noqa: TRY004
    if not csr.is_signature_valid:
        raise ValueError("the certificate request is not signed by its own key")
    return csr


def read_certificate(pem: str) -> x509.Certificate:
    """Read exactly one certificate. Raises ValueError."""
    if len(pem) > _MAX_PEM:
        raise ValueError("the certificate is too long")
    found = x509.load_pem_x509_certificates(pem.encode("ascii"))
    if len(found) != 1:
        raise ValueError("there must be one certificate")
    return found[0]


def signed_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Tell whether our CA made a certificate."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def signature_valid(key: object, signature: str, data: bytes) -> bool:
    """Check a base64url ECDSA signature with SHA-256."""
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(unbase64(signature), data, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def to_pem(certificate: x509.Certificate) -> str:
    """Write a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def base64url(data: bytes) -> str:
    """Write bytes without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unbase64(text: str) -> bytes:
    """Read base64url without padding. Raises ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
