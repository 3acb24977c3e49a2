"""The JSON by which a machine becomes a node and stays one.

The operator serves these without asking for a client certificate; each request proves itself.

====== ================================== ==================== ==================
method path                               request              reply
====== ================================== ==================== ==================
GET    ``/pki/ca.pem``                    none                 the CA, PEM
GET    ``/api/v1/enrolment/nonce``        none                 ``NonceReply``
POST   ``/api/v1/enrolment/certificates`` ``EnrolmentRequest`` ``EnrolmentReply``
POST   ``/api/v1/enrolment/renewals``     ``RenewalRequest``   ``EnrolmentReply``
====== ================================== ==================== ==================

Errors are ``wire.Problem`` documents. Of a join token the operator keeps only its secret's hash,
and of that only a MAC crosses the wire.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from typing_extensions import override

from narthex_exporter.contract.errors import NarthexError

CA_PATH: Final = "/pki/ca.pem"
NONCE_PATH: Final = "/api/v1/enrolment/nonce"
CERTIFICATES_PATH: Final = "/api/v1/enrolment/certificates"
RENEWALS_PATH: Final = "/api/v1/enrolment/renewals"

PIN_PREFIX: Final = "sha256:"
_PREFIX: Final = "nj1"
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

NodeId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Pem = Annotated[str, Field(min_length=1, max_length=8192)]
HexDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class NonceReply(BaseModel):
    """A nonce to bind one request to, good for two minutes, and the operator's clock."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    nonce: str = Field(min_length=1, max_length=256)
    time: AwareDatetime


class EnrolmentRequest(BaseModel):
    """Ask for a node's first certificate. ``mac`` is ``enrolment_mac`` over the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: NodeId
    csr: Pem
    nonce: str = Field(min_length=1, max_length=256)
    mac: HexDigest


class RenewalRequest(BaseModel):
    """Ask for a node's next certificate.

    ``certificate`` is the present one; ``signature`` (base64url, ECDSA with SHA-256) is made by
    its key over ``renewal_bytes``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Pem
    csr: Pem
    nonce: str = Field(min_length=1, max_length=256)
    signature: str = Field(min_length=1, max_length=256)


class EnrolmentReply(BaseModel):
    """A certificate and what its node must know.

    ``tickets`` is the CA-signed document of public ticket keys, to be kept word for word.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: NodeId
    name: str = Field(min_length=1, max_length=63)
    cluster: str = Field(pattern=r"^[0-9a-f]{16}$")
    generation: int = Field(ge=1)
    certificate: Pem
    tickets: dict[str, Any]
    gateway_url: str = Field(max_length=512)
    time: AwareDatetime


class TokenError(NarthexError):
    """A text is no join token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """A one-time token: which node it makes, and the secret that proves the right to."""

    node: str
    secret: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "JoinToken":
        """Read ``nj1.<node>.<secret>``. Raises TokenError, which never repeats the text."""
        prefix, _, rest = text.strip().partition(".")
        node, _, secret = rest.partition(".")
        if prefix != _PREFIX or not _ID.fullmatch(node) or not _SECRET.fullmatch(secret):
            raise TokenError(
                "the join token is not one: it looks like nj1.<node>.<43 characters>",
                hint="copy the whole line that `narthex node add` printed, or make a new one",
            )
        return cls(node=node, secret=secret)

    @override
    def __str__(self) -> str:
        return f"{_PREFIX}.{self.node}.{self.secret}"


def secret_digest(secret: str) -> str:
    """Hash a token's secret: what the operator keeps of it, as hex."""
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def csr_digest(csr: str) -> str:
    """Hash a CSR as it stands in its request, as hex."""
    return hashlib.sha256(csr.encode()).hexdigest()


def enrolment_mac(*, digest: str, node: str, csr: str, nonce: str) -> str:
    """Bind node, CSR and nonce together with ``secret_digest`` as the key; hex."""
    message = "|".join(("enrol-v1", node, csr_digest(csr), nonce))
    return hmac.new(bytes.fromhex(digest), message.encode(), hashlib.sha256).hexdigest()


def renewal_bytes(*, node: str, csr: str, nonce: str) -> bytes:
    """Give the bytes that a renewal's signature covers."""
    return "|".join(("renew-v1", node, csr_digest(csr), nonce)).encode()


def ca_pin(public_key_info: bytes) -> str:
    """Pin a CA by its key: SHA-256 of the DER SubjectPublicKeyInfo."""
    return PIN_PREFIX + hashlib.sha256(public_key_info).hexdigest()
