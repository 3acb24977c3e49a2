"""Know whose tickets count here: node, cluster and the CA-signed public keys."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from narthex_exporter.actor.policy import check_mode
from narthex_exporter.actor.runner import write_file
from narthex_exporter.contract.ticketkeys import KeyDocument, KeysError, read_keys
from narthex_exporter.errors import ConfigError, NarthexError

log = logging.getLogger(__name__)

ANCHOR: Final = "anchor.json"
_FILE_BYTES: Final = 64 * 1024


class NodeFile(BaseModel):
    """The part of node.json that matters here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    cluster: str = Field(pattern=r"^[0-9a-f]{16}$")


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
    version: int
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
    return Authority(
        node=node.id,
        cluster=node.cluster,
        version=document.version,
        keys=document.public_keys(),
    )


@dataclass(slots=True, kw_only=True)
class LiveAuthority:
    """The authority as its files say it now: a newer document of keys is taken as it comes.

    The exporter, which fetches it, needs no right to signal us. Each request costs a look at the
    file's state, a hundredth of what its ticket costs; what is wrong or older keeps what was in
    use.
    """

    node_dir: Path
    state_dir: Path
    changed: Callable[[Authority], None] = lambda _authority: None
    _present: Authority = field(init=False)
    _stamp: tuple[int, int, int] = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._stamp = self._state()
        self._present = load_authority(self.node_dir, self.state_dir)

    def get(self) -> Authority:
        """Give the authority, read anew if the file of keys is not as it was. Never raises."""
        with self._lock:
            stamp = self._state()
            if stamp != self._stamp:
                self._stamp = stamp
                self._read()
            return self._present

    def reload(self) -> None:
        """Read it anew in any case, as SIGHUP asks."""
        with self._lock:
            self._stamp = self._state()
            self._read()

    def _read(self) -> None:
        try:
            fresh = load_authority(self.node_dir, self.state_dir)
        except ConfigError as error:
            log.error("keys.wrong", extra={"error": str(error)})  # noqa: TRY400 - in words
            return
        if fresh == self._present:
            return
        try:
            # Written down before the first ticket by such a key can count.
            self.changed(fresh)
        except NarthexError as error:
            log.error("keys.unrecorded", extra={"error": str(error)})  # noqa: TRY400 - in words
            self._stamp = (0, 0, 0)
            return
        self._present = fresh
        log.info("keys.changed", extra={"version": fresh.version, "kids": sorted(fresh.keys)})

    def _state(self) -> tuple[int, int, int]:
        try:
            told = (self.node_dir / "tickets.json").stat()
        except OSError:
            return (0, 0, 0)
        return (told.st_mtime_ns, told.st_size, told.st_ino)


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
    try:
        return read_keys(_read(path), ca=ca, cluster=cluster)
    except KeysError as error:
        raise ConfigError(
            f"{path}: {error}",
            hint="let the exporter fetch it again, or enrol the node again: narthex join --force",
        ) from error


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
