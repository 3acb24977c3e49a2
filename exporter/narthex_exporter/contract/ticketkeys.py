"""Read the document of public ticket keys, and believe it only where the CA signed it."""

import base64
import json
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.wire import strict_json

MAX_BYTES: Final = 64 * 1024
# Where a node asks its operator's gateway for the document, with its certificate.
KEYS_PATH: Final = "/api/v1/ticket-keys"


class KeysError(NarthexError):
    """A document of ticket keys is none, or is not this CA's."""


class KeyEntry(BaseModel):
    """One public key for tickets."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kid: str = Field(min_length=1, max_length=128)
    key: str = Field(max_length=64)

    def public_key(self) -> Ed25519PublicKey:
        """Give the key. Raises KeysError."""
        try:
            return Ed25519PublicKey.from_public_bytes(_decode(self.key))
        except ValueError as error:
            raise KeysError(f"the key {self.kid!r} is not an Ed25519 key") from error


class KeyDocument(BaseModel):
    """The public keys for tickets, as the CA signed them: the current one, then the next."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: int = Field(ge=1, strict=True)
    cluster: str
    keys: tuple[KeyEntry, ...] = Field(min_length=1, max_length=16)
    signature: str

    def public_keys(self) -> dict[str, Ed25519PublicKey]:
        """Give the keys by their ids. Raises KeysError."""
        found = {entry.kid: entry.public_key() for entry in self.keys}
        if len(found) != len(self.keys):
            raise KeysError("it names one key id twice")
        return found


def read_keys(data: bytes, *, ca: x509.Certificate, cluster: str) -> KeyDocument:
    """Read a document that this CA signed for this cluster. Raises KeysError."""
    try:
        raw = strict_json(data)
        document = KeyDocument.model_validate(raw)
        signature = _decode(document.signature)
    except ValueError as error:  # pydantic's ValidationError is one
        raise KeysError("it holds no usable ticket keys") from error
    key = ca.public_key()
    signed = {name: value for name, value in raw.items() if name != "signature"}
    text = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
    wrong = KeysError("it is not signed by this node's CA")
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise wrong
    try:
        key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise wrong from error
    if document.cluster != cluster:
        raise KeysError(f"it is for cluster {document.cluster[:64]!r}, not {cluster}")
    document.public_keys()
    return document


def _decode(text: str) -> bytes:
    padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)
