"""Read a ``web-config.yml`` as exporter-toolkit defines it: TLS, passwords, headers, rate."""

import hashlib
import hmac
import logging
import os
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import bcrypt
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from narthex_exporter.errors import ConfigError, NarthexError
from narthex_exporter.sources.certificates import parse_der
from narthex_exporter.transport.tls import TLSFiles, server_context

log = logging.getLogger(__name__)

_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
# Go's names for TLS 1.2's suites that are fit for use, as OpenSSL names them. TLS 1.3's own
# suites cannot be chosen, in Go neither.
_CIPHERS: Final = {
    f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
    for key in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        ("CHACHA20_POLY1305", "CHACHA20-POLY1305"),
    )
}
_UNSUPPORTED: Final = ("cert", "key", "client_ca", "curve_preferences")
_Header = Literal[
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
]
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# What an unknown user's password is compared with, so that it takes as long: of random bytes.
_NOBODY: Final = "$2b$10$SGbeQJZvH7DF16tzZKd4mO3STfKdiYccXnZNb61C1utwWqNVZ6HbC"
_MAX_BYTES: Final = 256 * 1024


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        for unit, seconds in _UNITS.items():
            number = value.removesuffix(unit)
            if value.endswith(unit) and number.replace(".", "", 1).isdigit():
                return float(number) * seconds
    return value


class TLSServer(_Strict):
    """``tls_server_config``. Paths are relative to the file's own folder."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None
    client_auth_type: Literal[
        "", "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
    ] = ""
    client_allowed_sans: tuple[str, ...] = ()
    min_version: Literal["TLS12", "TLS13"] = "TLS12"
    max_version: Literal["TLS12", "TLS13"] = "TLS13"
    cipher_suites: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True


class HTTPServer(_Strict):
    """``http_server_config``. HTTP/2 may be allowed, but is not spoken here."""

    http2: bool = True
    headers: dict[_Header, str] = Field(default_factory=dict)


class RateLimit(_Strict):
    """``rate_limit``: one request an interval (seconds), with so many at once."""

    interval: Annotated[float, BeforeValidator(_duration)] = Field(default=0.0, ge=0)
    burst: int = Field(default=1, ge=1)


class WebConfig(_Strict):
    """The whole file."""

    tls_server_config: TLSServer | None = None
    http_server_config: HTTPServer = HTTPServer()
    basic_auth_users: dict[str, str] = Field(default_factory=dict)
    rate_limit: RateLimit = RateLimit()

    @property
    def demands_certificates(self) -> bool:
        """Tell whether nobody comes in without a certificate."""
        tls = self.tls_server_config
        return tls is not None and tls.client_auth_type == "RequireAndVerifyClientCert"


def load_web_config(path: Path) -> WebConfig:
    """Read and check a file. Raises ConfigError, which names the key that is wrong."""
    try:
        with path.open("rb") as file:
            data = yaml.safe_load(file.read(_MAX_BYTES))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the web configuration {path}: {error}") from error
    if data is None:
        return WebConfig()
    if isinstance(data, dict) and isinstance(data.get("tls_server_config"), dict):
        for name in _UNSUPPORTED:
            if data["tls_server_config"].get(name):
                raise ConfigError(
                    f"{path}: tls_server_config.{name} is not supported",
                    hint="give certificates and keys as files; leave curves to the defaults",
                )
    try:
        config = WebConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(
            f"{path}: {where}: {first['msg']}",
            hint="the format is exporter-toolkit's web-config.yml",
        ) from error
    return _checked(path, config)


def _checked(path: Path, config: WebConfig) -> WebConfig:
    for user, hashed in config.basic_auth_users.items():
        if not hashed.startswith(("$2a$", "$2b$", "$2y$")) or len(hashed) != 60:  # noqa: PLR2004
            raise ConfigError(
                f"{path}: basic_auth_users.{user} is not a bcrypt hash",
                hint=f"make one with: htpasswd -nB {user}",
            )
    tls = config.tls_server_config
    if tls is None:
        return config
    wanted = tls.client_auth_type not in {"", "NoClientCert"}
    if wanted != (tls.client_ca_file is not None):
        raise ConfigError(
            f"{path}: tls_server_config: client_ca_file and client_auth_type belong together",
            hint="with client_ca_file say client_auth_type: RequireAndVerifyClientCert",
        )
    if tls.client_allowed_sans and not config.demands_certificates:
        raise ConfigError(
            f"{path}: client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert"
        )
    if unknown := [name for name in tls.cipher_suites if name not in _CIPHERS]:
        raise ConfigError(
            f"{path}: cipher_suites: {unknown[0]} is not one of {', '.join(sorted(_CIPHERS))}"
        )
    base = path.parent
    return config.model_copy(
        update={
            "tls_server_config": tls.model_copy(
                update={
                    "cert_file": base / tls.cert_file,
                    "key_file": base / tls.key_file,
                    "client_ca_file": base / tls.client_ca_file if tls.client_ca_file else None,
                }
            )
        }
    )


def build_context(tls: TLSServer) -> ssl.SSLContext:
    """Build the TLS context that the file describes. Raises TLSFileError."""
    files = TLSFiles(cert=tls.cert_file, key=tls.key_file, ca=tls.client_ca_file)
    context = server_context(files, minimum=_VERSIONS[tls.min_version])
    context.maximum_version = _VERSIONS[tls.max_version]
    if tls.client_auth_type == "VerifyClientCertIfGiven":
        context.verify_mode = ssl.CERT_OPTIONAL
    if tls.client_ca_file is not None:
        # Other people's CAs were not made for the strict profile of RFC 5280.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls.cipher_suites:
        context.set_ciphers(":".join(_CIPHERS[name] for name in tls.cipher_suites))
    return context


@dataclass(slots=True)
class WebConfigFile:
    """A file that is read again when it, or a file that it names, changes.

    A change that is wrong is told once and keeps what was in use: a slip of the pen must not
    close the port, nor open it.
    """

    path: Path
    on_reload: Callable[[bool], None] = lambda _: None
    _config: WebConfig | None = field(default=None, init=False)
    _context: ssl.SSLContext | None = field(default=None, init=False)
    _stamp: tuple[tuple[int, int], ...] = field(default=(), init=False)
    _problem: NarthexError | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def config(self) -> WebConfig:
        """The configuration as of now. Raises NarthexError at first only."""
        with self._lock:
            self._refresh()
            if self._config is None:
                raise ConfigError(f"{self.path} was never read")
            return self._config

    def get(self) -> ssl.SSLContext:
        """Give the TLS context as of now; see ContextSource."""
        with self._lock:
            self._refresh()
            if self._context is None:
                raise ConfigError(f"{self.path} has no tls_server_config")
            return self._context

    def reload(self) -> None:
        """Read the file now. Raises NarthexError where it is wrong; what was in use stays."""
        with self._lock:
            self._stamp = ()
            self._refresh()
            if self._problem is not None:
                raise self._problem

    def _refresh(self) -> None:
        stamp = tuple(_stamps(self.path, self._config))
        if self._config is not None and stamp == self._stamp:
            return
        try:
            config = load_web_config(self.path)
            tls = config.tls_server_config
            if self._config is not None and (tls is None) != (self._context is None):
                raise ConfigError(f"{self.path}: TLS is turned on and off by a restart only")
            context = build_context(tls) if tls else None
        except NarthexError as error:
            if self._config is None:
                raise
            log.warning("webconfig.kept", extra={"path": str(self.path), "error": str(error)})
            self._stamp, self._problem = stamp, error
            self.on_reload(False)
            return
        self._config, self._context, self._problem = config, context, None
        self._stamp = tuple(_stamps(self.path, config))
        self.on_reload(True)


def _stamps(path: Path, config: WebConfig | None) -> Iterator[tuple[int, int]]:
    paths: list[Path | None] = [path]
    if config is not None and config.tls_server_config is not None:
        tls = config.tls_server_config
        paths += [tls.cert_file, tls.key_file, tls.client_ca_file]
    for each in paths:
        if each is not None:
            try:
                status = each.stat()
            except OSError:
                yield (0, 0)
            else:
                yield (status.st_mtime_ns, status.st_ino)


class Passwords:
    """Check passwords against bcrypt hashes; one right answer is remembered, as it is slow."""

    def __init__(self, *, remembered: int = 100, at_once: int = 2) -> None:
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._remembered = remembered
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(at_once)
        self._salt = os.urandom(16)

    def right(self, users: dict[str, str], user: str, password: str) -> bool:
        """Tell whether ``user`` may come in with ``password``."""
        hashed = users.get(user, _NOBODY)
        secret = password.encode()
        mark = hmac.digest(
            self._salt, b"\0".join((hashed.encode(), user.encode(), secret)), hashlib.sha256
        )
        with self._lock:
            if mark in self._right:
                return True
        # bcrypt reads 72 bytes; a longer password is never right.
        with self._slots:
            same = len(secret) <= 72 and bcrypt.checkpw(secret, hashed.encode())  # noqa: PLR2004
        if not same or user not in users:
            return False
        with self._lock:
            self._right[mark] = None
            while len(self._right) > self._remembered:
                self._right.popitem(last=False)
        return True


class Bucket:
    """Let one request through each interval, and a burst at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._spent = 0.0
        self._at = clock()

    def take(self, limit: RateLimit) -> bool:
        """Tell whether one more may pass now."""
        if not limit.interval:
            return True
        with self._lock:
            now = self._clock()
            self._spent = max(0.0, self._spent - (now - self._at) / limit.interval)
            self._at = now
            if self._spent + 1 > limit.burst:
                return False
            self._spent += 1
            return True


def names_of(certificate: bytes) -> frozenset[str]:
    """Give every subject alternative name of a certificate, as exporter-toolkit compares them."""
    try:
        return parse_der(certificate).alternative_names
    except ValueError:
        return frozenset()
