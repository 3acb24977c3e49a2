"""Hash, check and judge passwords."""

import base64
import hashlib
import hmac
import secrets
import threading
import unicodedata
from dataclasses import dataclass, field
from typing import Final

import bcrypt

from narthex_operator.errors import InvalidError, LimitedError

LEAST_CHARACTERS: Final = 12
MOST_BYTES: Final = 1024
_PREFIX: Final = "v1$"
_SLOTS: Final = 4
_WAIT_SECONDS: Final = 10.0
_LEAST_DISTINCT: Final = 5
# Of twelve characters and more: what lists of leaked passwords begin with.
_COMMON: Final = frozenset(
    {
        "123456789012",
        "1234567890123",
        "1234567890qwerty",
        "123456789abc",
        "123qweasdzxc",
        "1q2w3e4r5t6y",
        "1q2w3e4r5t6y7u8i",
        "1qaz2wsx3edc",
        "1qaz2wsx3edc4rfv",
        "abcdefghijkl",
        "abcdefghijklm",
        "administrator",
        "administrator1",
        "adminadminadmin",
        "changemenow1",
        "changeme1234",
        "changemeplease",
        "correcthorsebatterystaple",
        "iloveyou1234",
        "iloveyouforever",
        "letmein12345",
        "letmeinplease",
        "mypassword123",
        "narthexnarthex",
        "p@ssw0rd1234",
        "p@ssword1234",
        "passw0rd1234",
        "password1234",
        "password12345",
        "password123456",
        "password2024",
        "password2025",
        "password2026",
        "passwordpassword",
        "qazwsxedcrfv",
        "qwerty123456",
        "qwertyqwerty",
        "qwertyuiop12",
        "qwertyuiop123",
        "qwertyuiop[]",
        "qwertyuiopasdfghjkl",
        "sunshine1234",
        "superman1234",
        "trustno1trustno1",
        "welcome12345",
        "zaq12wsxcde3",
        "zxcvbnmasdfghjkl",
        "йцукенгшщзхъ",
    }
)


@dataclass(slots=True)
class Passwords:
    """bcrypt over an HMAC with a pepper that lies outside the database.

    The HMAC makes any length and any character equal to bcrypt, which reads 72 bytes and stops
    at NUL. ``cost`` is lower in tests only.
    """

    pepper: bytes = field(repr=False)
    cost: int = 12
    _slots: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(_SLOTS), init=False
    )
    _nobody: str = field(default="", init=False)

    def __post_init__(self) -> None:
        # As much work to check as any hash, and nobody knows what it is the hash of.
        self._nobody = bcrypt.gensalt(self.cost).decode("ascii") + secrets.token_hex(16)[:31]

    def hash(self, password: str) -> str:
        """Hash a password. Raises InvalidError for one that is empty or too long."""
        prepared = self._prepare(password)
        with _slot(self._slots):
            return _PREFIX + bcrypt.hashpw(prepared, bcrypt.gensalt(self.cost)).decode("ascii")

    def matches(self, password: str, hashed: str | None) -> bool:
        """Check a password; for nobody (``None``) the same work is done, and it never matches."""
        prepared = self._prepare(password)
        stored = (hashed or self._nobody).removeprefix(_PREFIX)
        with _slot(self._slots):
            same = bcrypt.checkpw(prepared, stored.encode("ascii"))
        return same and hashed is not None

    def outdated(self, hashed: str) -> bool:
        """Tell whether a hash was made at a lower cost or in an older way."""
        parts = hashed.removeprefix(_PREFIX).split("$")
        return not hashed.startswith(_PREFIX) or parts[2] < f"{self.cost:02d}"

    def _prepare(self, password: str) -> bytes:
        try:
            data = unicodedata.normalize("NFC", password[: MOST_BYTES + 1]).encode()
        except UnicodeEncodeError as error:
            raise InvalidError("the password is not text") from error
        if not 1 <= len(data) <= MOST_BYTES or len(password) > MOST_BYTES:
            raise InvalidError(f"a password has 1 to {MOST_BYTES} bytes")
        return base64.b64encode(hmac.new(self.pepper, data, hashlib.sha256).digest())


class _slot:  # noqa: N801 - used as a function
    """Hold one of few places for hashing: many sign-ins must not freeze the panel."""

    def __init__(self, slots: threading.BoundedSemaphore) -> None:
        self.slots = slots

    def __enter__(self) -> None:
        if not self.slots.acquire(timeout=_WAIT_SECONDS):
            raise LimitedError("too many sign-ins at once", retry_after_seconds=5)

    def __exit__(self, *_: object) -> None:
        self.slots.release()


def check_new_password(password: str, *, user: str) -> None:
    """Judge a password that somebody chose. Raises InvalidError that says what to do."""
    plain = unicodedata.normalize("NFC", password).casefold()
    hint = "four or five unrelated words make a good one; a password manager a better one"
    if len(password) < LEAST_CHARACTERS:
        raise InvalidError(
            f"a password has at least {LEAST_CHARACTERS} characters; this one has {len(password)}",
            hint=hint,
        )
    if len(password.encode(errors="replace")) > MOST_BYTES:
        raise InvalidError(f"a password has at most {MOST_BYTES} bytes")
    if plain in _COMMON or len(set(plain)) < _LEAST_DISTINCT:
        raise InvalidError("this password is among the first that anybody would try", hint=hint)
    if len(user) > 3 and user.casefold() in plain and len(plain) < 2 * LEAST_CHARACTERS:  # noqa: PLR2004
        raise InvalidError("the password contains the user's name", hint=hint)


def new_password() -> str:
    """Make a first password: 120 bits, in groups that can be read aloud."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(6)) for _ in range(4))
