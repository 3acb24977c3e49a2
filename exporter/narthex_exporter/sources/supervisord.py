"""Know what supervisord runs, from its XML-RPC over its Unix socket.

See https://supervisord.org/api.html.
"""

import http.client
import socket
import stat
import struct
import xmlrpc.client
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.parsers.expat import ExpatError

from narthex_exporter.contract.facts import ProgramFact
from narthex_exporter.errors import UnavailableError
from narthex_exporter.overriding import override
from narthex_exporter.sources.text import clean, clean_block

# Where distributions and pip's own example put it; never in a folder that others may write.
SOCKETS: Final = (
    Path("/run/supervisor.sock"),
    Path("/run/supervisor/supervisor.sock"),
    Path("/run/supervisord.sock"),
)
_CALL_SECONDS: Final = 10.0
_REPLY_BYTES: Final = 4 << 20
_TEXT_CHARACTERS: Final = 300


class FaultError(UnavailableError):
    """Supervisord refuses; ``code`` is its own number of why."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervisord:
    """The supervisord of this machine. ``owner`` is the only user whose answer is taken."""

    sockets: Sequence[Path] = SOCKETS
    owner: int = 0

    def unavailable(self) -> str:
        """Say why supervisord cannot be asked; empty when it can."""
        return "" if self._socket() is not None else "supervisord is not running"

    def list(self) -> Sequence[ProgramFact]:
        """List its programs, by name. Raises UnavailableError."""
        found = self.call("supervisor.getAllProcessInfo")
        if not isinstance(found, Iterable):
            raise UnavailableError("supervisord answers with what is no list")
        return sorted(map(_program, found), key=lambda one: one.name)

    def tail(self, program: str, *, size_bytes: int, errors: bool) -> str:
        """Read the end of what a program printed. Raises UnavailableError."""
        method = "tailProcessStderrLog" if errors else "tailProcessStdoutLog"
        found = self.call(f"supervisor.{method}", program, 0, size_bytes)
        text = found[0] if isinstance(found, list | tuple) and found else ""
        return clean_block(str(text).encode("utf-8", "replace"))

    def call(self, method: str, *args: Any, seconds: float = _CALL_SECONDS) -> Any:
        """Call a method by name. Raises FaultError, UnavailableError."""
        path = self._socket()
        if path is None:
            raise UnavailableError(self.unavailable())
        transport = _Transport(path, owner=self.owner, seconds=seconds)
        try:
            with xmlrpc.client.ServerProxy("http://supervisor", transport=transport) as server:
                return getattr(server, method)(*args)
        except xmlrpc.client.Fault as fault:
            raise FaultError(
                f"supervisord refuses: {clean(fault.faultString, limit=_TEXT_CHARACTERS)}",
                code=fault.faultCode,
            ) from fault
        except (
            OSError,
            http.client.HTTPException,
            xmlrpc.client.Error,
            ExpatError,
            ValueError,
            LookupError,
            TypeError,
        ) as error:
            raise UnavailableError(f"supervisord does not answer at {path}: {error}") from error

    def _socket(self) -> Path | None:
        for path in self.sockets:
            try:
                status, folder = path.lstat(), path.parent.stat()
            except OSError:
                continue
            if (
                stat.S_ISSOCK(status.st_mode)
                and status.st_uid in {0, self.owner}
                and not folder.st_mode & stat.S_IWOTH
            ):
                return path
        return None


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket whose other end is a certain user's."""

    def __init__(self, path: Path, *, owner: int, seconds: float) -> None:
        super().__init__("supervisor", timeout=seconds)
        self._path, self._owner, self._seconds = path, owner, seconds

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._seconds)
        self.sock.connect(str(self._path))
        raw = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid = struct.unpack("=iII", raw)[1]
        if uid not in {0, self._owner}:
            raise PermissionError(f"what listens there belongs to user {uid}")


class _Transport(xmlrpc.client.Transport):
    """XML-RPC on that connection, with replies of a bounded size."""

    def __init__(self, path: Path, *, owner: int, seconds: float) -> None:
        super().__init__()
        self._path, self._owner, self._seconds = path, owner, seconds

    @override
    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        made = _Connection(self._path, owner=self._owner, seconds=self._seconds)
        self._connection = (host, made)  # What the base class closes.
        return made

    @override
    def parse_response(self, response: Any) -> Any:
        raw = response.read(_REPLY_BYTES + 1)
        if len(raw) > _REPLY_BYTES:
            raise ValueError(f"its answer is longer than {_REPLY_BYTES} bytes")
        parser, unmarshaller = self.getparser()
        parser.feed(raw)
        parser.close()
        return unmarshaller.close()


def _program(raw: dict[str, Any]) -> ProgramFact:
    try:
        running = raw["statename"] == "RUNNING"
        return ProgramFact(
            name=clean(f"{raw['group']}:{raw['name']}", limit=255),
            state=clean(str(raw["statename"]), limit=32),
            description=clean(str(raw["description"]), limit=_TEXT_CHARACTERS),
            pid=int(raw["pid"]),
            since_seconds=float(raw["start"]) if running else None,
            exit_status=None if running or not raw["stop"] else int(raw["exitstatus"]),
            problem=clean(str(raw["spawnerr"]), limit=_TEXT_CHARACTERS),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnavailableError(f"supervisord tells of a program what is none: {error}") from error
