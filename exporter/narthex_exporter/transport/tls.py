"""Build TLS contexts that fail closed, and rebuild them when their files change."""

import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.overriding import override


class TLSFileError(NarthexError):
    """A certificate, key or CA file is missing, wrong or readable by others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSFiles:
    """The files of one TLS end. ``ca`` verifies the peer; without it a server asks for none."""

    cert: Path
    key: Path
    ca: Path | None = None


def server_context(
    files: TLSFiles, *, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    """Build a server's context; where ``files.ca`` is given a client certificate is required."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    # A resumed session would outlive the certificate that opened it.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _load(context, files)
    if files.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def client_context(files: TLSFiles) -> ssl.SSLContext:
    """Build a client's context: our CA only, TLS 1.3 only, the peer's name checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if files.ca is None:
        raise TLSFileError("a client needs the CA that signed its peer")
    _load(context, files)
    return context


def verifying_context(ca: Path) -> ssl.SSLContext:
    """Build a context for a client without a certificate of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise TLSFileError(f"cannot read the CA {ca}: {error}") from error
    return context


class ContextSource(Protocol):
    """Whatever gives a listener the TLS context for its next connection."""

    def get(self) -> ssl.SSLContext:
        """Return a context. May raise at the first call only."""
        ...


@dataclass(slots=True)
class ReloadingContext:
    """A server's context that follows its files, so that renewal needs no restart.

    A file that turns bad keeps the last good context: a half-written renewal must not close
    the port.
    """

    files: TLSFiles
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    _context: ssl.SSLContext | None = field(default=None, init=False)
    _stamp: tuple[tuple[int, int], ...] = field(default=(), init=False)

    def get(self) -> ssl.SSLContext:
        """Return a context for the files as they are now. Raises TLSFileError at first only."""
        stamp = self._stamps()
        if self._context is None or stamp != self._stamp:
            try:
                self._context = self._build()
                self._stamp = stamp
            except TLSFileError:
                if self._context is None:
                    raise
        return self._context

    def _build(self) -> ssl.SSLContext:
        return server_context(self.files, minimum=self.minimum)

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        found = []
        for path in (self.files.cert, self.files.key, self.files.ca):
            if path is not None:
                try:
                    status = path.stat()
                    found.append((status.st_mtime_ns, status.st_ino))
                except OSError:
                    found.append((0, 0))
        return tuple(found)


@dataclass(slots=True)
class ReloadingClientContext(ReloadingContext):
    """A client's context that follows its files: to build one costs more than a handshake."""

    @override
    def _build(self) -> ssl.SSLContext:
        return client_context(self.files)


def check_private(path: Path) -> None:
    """Refuse a secret file that others may read. Raises TLSFileError."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise TLSFileError(f"cannot read {path}: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TLSFileError(
            f"{path} can be read by others (mode {stat.S_IMODE(mode):04o})",
            hint=f"run: chmod 600 {path}",
        )


def _load(context: ssl.SSLContext, files: TLSFiles) -> None:
    check_private(files.key)
    try:
        context.load_cert_chain(files.cert, files.key)
        if files.ca is not None:
            context.load_verify_locations(files.ca)
    except OSError as error:
        raise TLSFileError(
            f"cannot load the certificate {files.cert} with the key {files.key}"
            f"{f' and the CA {files.ca}' if files.ca else ''}: {error}"
        ) from error
