"""Know whose tickets count here: node, cluster and the CA-signed public keys."""

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from narthex_exporter.actor.policy import check_mode
from narthex_exporter.actor.runner import write_file
from narthex_exporter.contract.wire import strict_json
from narthex_exporter.errors import ConfigError

ANCHOR: Final = "anchor.json"
_FILE_BYTES: Final = 64 * 1024


class NodeFile(BaseModel):
    """The part of node.json that matters here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    cluster: str = Field(pattern=r"^[0-9a-f]{16}$")


class KeyEntry(BaseModel):
    """One public key for tickets."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kid: str = Field(min_length=1, max_length=128)
    key: str = Field(max_length=64)


class KeyDocument(BaseModel):
    """The public keys for tickets, as the CA signed them."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: int = Field(ge=1, strict=True)
    cluster: str
    keys: tuple[KeyEntry, ...] = Field(min_length=1, max_length=16)
    signature: str


class Anchor(BaseModel):
    """What the first start found: later starts must find the same, and no older keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str
    cluster: str
    ca_spki_sha256: str
    keys_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Whose tickets count here."""

    node: str
    cluster: str
    keys: Mapping[str, Ed25519PublicKey]


def load_authority(node_dir: Path, state_dir: Path) -> Authority:
    """Read and check node.json, pki/ca.pem and tickets.json. Raises ConfigError.

    The node's folder belongs to the exporter, which must not be able to name another authority:
    what the first start saw is kept in the actor's own folder.
    """
    try:
        node = NodeFile.model_validate_json(_read(node_dir / "node.json"))
    except ValidationError as error:
        raise ConfigError(
            f"{node_dir / 'node.json'} is not a node's: {error.error_count()} fields are wrong",
            hint="enrol the node again: narthex join --force",
        ) from error
    ca = _load_ca(node_dir / "pki" / "ca.pem")
    document = _load_keys(node_dir / "tickets.json", ca, node.cluster)
    _check_anchor(
        state_dir / ANCHOR,
        Anchor(
            node=node.id,
            cluster=node.cluster,
            ca_spki_sha256=_spki_hash(ca),
            keys_version=document.version,
        ),
    )
    keys = {entry.kid: _public_key(entry, node_dir / "tickets.json") for entry in document.keys}
    if len(keys) != len(document.keys):
        raise ConfigError(f"{node_dir / 'tickets.json'} names one key id twice")
    return Authority(node=node.id, cluster=node.cluster, keys=keys)


def _check_anchor(path: Path, found: Anchor) -> None:
    try:
        known = Anchor.model_validate_json(_read(path)) if path.exists() else None
    except ValidationError as error:
        raise ConfigError(
            f"{path} is damaged", hint=f"as root, see why, then: rm {path}"
        ) from error
    if known is not None:
        if found.model_copy(update={"keys_version": known.keys_version}) != known:
            raise ConfigError(
                f"this node is enrolled elsewhere than when its actor first started ({path})",
                hint=f"if you moved it yourself, as root: rm {path}",
            )
        if found.keys_version < known.keys_version:
            raise ConfigError(
                f"the ticket keys are older (version {found.keys_version}) than those already"
                f" seen here (version {known.keys_version})",
                hint="let the exporter fetch the current ones, or enrol the node again",
            )
    if found != known:
        try:
            write_file(path, found.model_dump_json().encode() + b"\n", mode=0o600)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def _load_ca(path: Path) -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise ConfigError(f"{path} is not a certificate") from error
    if len(found) != 1:
        raise ConfigError(f"{path} holds {len(found)} certificates where one CA is due")
    return found[0]


def _load_keys(path: Path, ca: x509.Certificate, cluster: str) -> KeyDocument:
    wrong = ConfigError(
        f"{path} is not signed by this node's CA",
        hint="let the exporter fetch it again, or enrol the node again: narthex join --force",
    )
    try:
        raw = strict_json(_read(path))
        document = KeyDocument.model_validate(raw)
        signature = _decode(document.signature)
    except ValueError as error:  # pydantic's ValidationError is one
        raise ConfigError(
            f"{path} holds no usable ticket keys",
            hint="enrol the node again: narthex join --force",
        ) from error
    key = ca.public_key()
    signed = {name: value for name, value in raw.items() if name != "signature"}
    text = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise wrong
    try:
        key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise wrong from error
    if document.cluster != cluster:
        raise ConfigError(f"{path} is for cluster {document.cluster}, not {cluster}")
    return document


def _public_key(entry: KeyEntry, path: Path) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(_decode(entry.key))
    except ValueError as error:
        raise ConfigError(f"{path}: the key {entry.kid!r} is not an Ed25519 key") from error


def _decode(text: str) -> bytes:
    padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)


def _spki_hash(ca: x509.Certificate) -> str:
    spki = ca.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashes.Hash(hashes.SHA256())
    digest.update(spki)
    return digest.finalize().hex()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            check_mode(path, os.fstat(file.fileno()))
            return file.read(_FILE_BYTES)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}",
            hint="enrol the node first: narthex join",
        ) from error
