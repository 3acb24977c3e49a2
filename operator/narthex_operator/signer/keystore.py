"""Keep the signer's keys in files that nobody else can read."""

import contextlib
import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, ValidationError

from narthex_exporter.contract.enrolment import ca_pin
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.durable import write_durably
from narthex_exporter.transport.keys import (
    key_pem,
    load_key,
    new_key,
    public_key_info,
)
from narthex_exporter.transport.tls import check_private
from narthex_operator.security.certificates import base64url, to_pem
from narthex_operator.security.chain import canonical
from narthex_operator.signer.ca import make_ca
from narthex_operator.signer.messages import TicketKeys

TICKET_KEY_SECONDS: Final = 90 * 86400
# Nodes fetch the published keys every hour: after two, all that are up know the next one.
PUBLISHED_SECONDS: Final = 2 * 3600


class KeyStoreError(NarthexError):
    """The signer's keys are missing, damaged, in use, or open to others."""


class TooSoonError(KeyStoreError):
    """The next ticket key has not been published for long enough to come into use."""


class _State(BaseModel):
    """Which ticket keys are published: the current one, and the next, known beforehand."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cluster: str
    version: int
    current: str
    next: str
    rotated_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotation:
    """Which keys change places: ``retired`` is forgotten, ``current`` signs, ``next`` is new."""

    version: int
    retired: str
    current: str
    next: str


@dataclass(slots=True)
class KeyStore:
    """The CA key and the ticket keys. Use ``open_key_store``."""

    folder: Path
    ca: x509.Certificate
    ca_key: ec.EllipticCurvePrivateKey
    clock: Callable[[], float]
    _state: _State
    _lock_file: int
    # Told of a rotation before it is done: what it raises stops it.
    rotating: Callable[[KeyRotation], None] = lambda _rotation: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def close(self) -> None:
        """Let another signer use the folder."""
        os.close(self._lock_file)

    @property
    def cluster(self) -> str:
        """The cluster's id: 16 hex digits."""
        return self._state.cluster

    @property
    def pin(self) -> str:
        """The pin by which nodes know the CA."""
        return ca_pin(public_key_info(self.ca))

    def ca_signature(self, data: bytes) -> str:
        """Sign with the CA key; base64url."""
        return base64url(self.ca_key.sign(data, ec.ECDSA(hashes.SHA256())))

    def ticket_key(self) -> tuple[str, Ed25519PrivateKey]:
        """Give the current ticket key with its id."""
        with self._lock:
            self._rotate_when_old()
            return self._state.current, _load_ticket_key(self.folder, self._state.current)

    def ticket_keys(self) -> TicketKeys:
        """Give the public ticket keys, signed by the CA."""
        with self._lock:
            self._rotate_when_old()
            state = self._state
        document: TicketKeys = {
            "version": state.version,
            "cluster": state.cluster,
            "keys": [
                {"kid": kid, "key": _public_text(_load_ticket_key(self.folder, kid))}
                for kid in (state.current, state.next)
            ],
        }
        return document | {"signature": self.ca_signature(canonical(document))}

    def rotate(self, *, force: bool = False) -> KeyRotation:
        """Let the next key sign from now on, forget the current one, publish a new next one.

        Raises TooSoonError where the next one was published less than two hours ago, unless
        forced: nodes that have not fetched it refuse every ticket until they do.
        """
        with self._lock:
            known = self.clock() - self._state.rotated_at
            if known < PUBLISHED_SECONDS and not force:
                raise TooSoonError(
                    f"the next ticket key was published only {max(0, int(known // 60))} minutes"
                    f" ago, and nodes fetch keys every hour: those that have not done so would"
                    f" refuse every action until they do",
                    hint=f"rotate in {int((PUBLISHED_SECONDS - known) // 60) + 1} minutes, or with"
                    " --force where the present key is no longer to be trusted",
                )
            return self._rotate()

    def _rotate_when_old(self) -> None:
        if self.clock() - self._state.rotated_at >= TICKET_KEY_SECONDS:
            self._rotate()

    def _rotate(self) -> KeyRotation:
        state = self._state
        fresh = _make_ticket_key(self.folder)
        rotation = KeyRotation(
            version=state.version + 1, retired=state.current, current=state.next, next=fresh
        )
        self.rotating(rotation)
        self._state = _State(
            cluster=state.cluster,
            version=rotation.version,
            current=rotation.current,
            next=rotation.next,
            rotated_at=self.clock(),
        )
        _write_state(self.folder, self._state)
        _ticket_file(self.folder, rotation.retired).unlink(missing_ok=True)
        return rotation


def open_key_store(folder: Path, *, clock: Callable[[], float] = time.time) -> KeyStore:
    """Open the keys, making them where there are none yet. Raises KeyStoreError.

    Nothing is made anew where anything is left: a lost key must be restored, not replaced.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyStoreError(f"cannot make {folder}: {error.strerror}") from error
    check_private(folder)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise KeyStoreError(
            f"another signer uses {folder}", hint="stop it, or name another --state.dir"
        ) from error
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        if not any((folder / name).exists() for name in ("ca.key", "ca.pem", "state.json")):
            _create(folder, clock())
        store = _load(folder, descriptor, clock)
        stack.pop_all()
    return store


def _create(folder: Path, now: float) -> None:
    cluster = secrets.token_hex(8)
    key = new_key()
    ca = make_ca(key, cluster, now=datetime.fromtimestamp(now, tz=UTC))
    state = _State(
        cluster=cluster,
        version=1,
        current=_make_ticket_key(folder),
        next=_make_ticket_key(folder),
        rotated_at=now,
    )
    write_durably(folder / "ca.key", key_pem(key))
    write_durably(folder / "ca.pem", to_pem(ca).encode())
    _write_state(folder, state)


def _load(folder: Path, descriptor: int, clock: Callable[[], float]) -> KeyStore:
    try:
        key = load_key(folder / "ca.key")
        ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        state = _State.model_validate_json((folder / "state.json").read_bytes())
    except (OSError, ValueError, ValidationError) as error:
        raise KeyStoreError(
            f"the signer's keys in {folder} are incomplete: {error}",
            hint="restore the folder from a backup; a new CA would strand every node",
        ) from error
    if ca.public_key() != key.public_key():
        raise KeyStoreError(
            f"{folder / 'ca.pem'} and ca.key do not belong together",
            hint="restore both from one backup",
        )
    for kid in (state.current, state.next):
        _load_ticket_key(folder, kid)
    return KeyStore(folder, ca, key, clock, state, descriptor)


def _write_state(folder: Path, state: _State) -> None:
    write_durably(folder / "state.json", json.dumps(state.model_dump()).encode())


def _ticket_file(folder: Path, kid: str) -> Path:
    return folder / f"ticket-{kid}.key"


def _make_ticket_key(folder: Path) -> str:
    key = Ed25519PrivateKey.generate()
    kid = sha256(key.public_key().public_bytes_raw()).hexdigest()[:16]
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_durably(_ticket_file(folder, kid), pem)
    return kid


def _load_ticket_key(folder: Path, kid: str) -> Ed25519PrivateKey:
    path = _ticket_file(folder, kid)
    check_private(path)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise KeyStoreError(
            f"{path} holds no usable ticket key", hint="restore it from a backup"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyStoreError(f"{path} holds a key that is not Ed25519")
    return key


def _public_text(key: Ed25519PrivateKey) -> str:
    return base64url(key.public_key().public_bytes_raw())
