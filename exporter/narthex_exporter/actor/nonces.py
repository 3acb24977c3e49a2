"""Give out nonces that are good once, for a while, for one start of the actor."""

import hashlib
import hmac
import secrets
import struct
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_RANDOM_BYTES: Final = 16
_MAC_BYTES: Final = 16
_HEADER: Final = struct.Struct(">d")


@dataclass(slots=True)
class Nonces:
    """Nonces carry their own proof, so that only spent ones take memory.

    Who asks for many cannot push out those of others; and to spend one takes a signed ticket.
    """

    lifetime_seconds: float = 300.0
    capacity: int = 65_536
    clock: Callable[[], float] = time.monotonic
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32), init=False, repr=False)
    _spent: dict[bytes, float] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def issue(self) -> str:
        """Make a fresh nonce."""
        body = _HEADER.pack(self.clock()) + secrets.token_bytes(_RANDOM_BYTES)
        return urlsafe_b64encode(body + self._mac(body)).decode()

    def spend(self, nonce: str) -> bool:
        """Tell, once and only once, that a nonce is ours and fresh."""
        try:
            raw = urlsafe_b64decode(nonce.encode("ascii"))
        except ValueError:
            return False
        if urlsafe_b64encode(raw).decode() != nonce:
            return False  # base64 can be written in several ways; a nonce only in one
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if len(body) != _HEADER.size + _RANDOM_BYTES or not hmac.compare_digest(
            mac, self._mac(body)
        ):
            return False
        expires = _HEADER.unpack_from(body)[0] + self.lifetime_seconds
        with self._lock:
            self._forget()
            # Full means that nothing is known to be unspent: refuse.
            if self.clock() > expires or body in self._spent or len(self._spent) >= self.capacity:
                return False
            self._spent[body] = expires
        return True

    def _forget(self) -> None:
        now = self.clock()
        if len(self._spent) >= self.capacity // 2:
            self._spent = {body: end for body, end in self._spent.items() if end >= now}

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:_MAC_BYTES]
