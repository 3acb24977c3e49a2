"""Call methods on the system bus, and wait for its signals."""

import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jeepney import DBusAddress, DBusErrorResponse, MatchRule, Message, new_method_call
from jeepney.auth import AuthenticationError
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, DBusConnectionBase, Proxy, prep_socket
from jeepney.io.common import MessageFilters
from jeepney.wrappers import unwrap_msg

from narthex_exporter.errors import UnavailableError
from narthex_exporter.overriding import override

SYSTEM_BUS: Final = Path("/run/dbus/system_bus_socket")
# What jeepney raises for bytes that are no message.
_NONSENSE: Final = (ValueError, LookupError, TypeError, struct.error)
_MOST_BYTES: Final = 64 << 20
_GREETING_BYTES: Final = 512
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"


class BusError(UnavailableError):
    """The bus, or who was called, does not answer."""


class CallError(UnavailableError):
    """A method answered with an error; ``name`` is the bus' own name of it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An object on the bus, and one interface of it."""

    bus_name: str
    path: str
    interface: str


class _Connection(DBusConnection):  # type: ignore[misc]  # jeepney publishes no types
    """A connection that no call waits on for ever, as jeepney's own greeting would."""

    def __init__(self, wire: socket.socket, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._received = 0
        super().__init__(wire)

    @override
    def send_and_get_reply(self, message: Message, *, timeout: float | None = None) -> Message:
        limit = self._timeout_seconds if timeout is None else timeout
        return super().send_and_get_reply(message, timeout=limit)

    @override
    def _read_some_data(self, timeout: float | None = None) -> tuple[bytes, list[Any]]:
        found: tuple[bytes, list[Any]] = super()._read_some_data(timeout)
        self._received += len(found[0])
        # Whoever answers may be a user: no memory without bounds for what they say.
        if self._received > _MOST_BYTES:
            raise OSError(f"it sent more than {_MOST_BYTES} bytes")
        return found


class _DirectConnection(_Connection):
    """A connection to a service's own socket: there is no bus that one says hello to."""

    def __init__(self, wire: socket.socket, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._received = 0
        DBusConnectionBase.__init__(self, wire)
        self._filters = MessageFilters()


@dataclass(slots=True)
class Bus:
    """One connection to the bus, or to one service's own socket (``direct``); for one thread."""

    connection: DBusConnection
    direct: bool = False

    def call(
        self,
        address: Address,
        method: str,
        signature: str = "",
        body: tuple[Any, ...] = (),
        *,
        timeout_seconds: float = 10.0,
    ) -> tuple[Any, ...]:
        """Call a method and return what it returned. Raises CallError, BusError."""
        target = DBusAddress(address.path, address.bus_name, address.interface)
        message = new_method_call(target, method, signature or None, body)
        return self._send(message, timeout_seconds)

    def properties(self, address: Address) -> dict[str, Any]:
        """Read every property of one interface. Raises CallError, BusError."""
        target = Address(bus_name=address.bus_name, path=address.path, interface=_PROPERTIES)
        found = self.call(target, "GetAll", "s", (address.interface,))[0]
        return {name: value for name, (_, value) in found.items()}

    def get(self, address: Address, name: str, *, timeout_seconds: float = 10.0) -> Any:
        """Read one property. Raises CallError, BusError."""
        target = Address(bus_name=address.bus_name, path=address.path, interface=_PROPERTIES)
        body = (address.interface, name)
        return self.call(target, "Get", "ss", body, timeout_seconds=timeout_seconds)[0][1]

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    @contextlib.contextmanager
    def signals(self, address: Address, member: str) -> Iterator[deque[Message]]:
        """Collect one kind of signal while the block runs."""
        rule = MatchRule(
            type="signal", interface=address.interface, member=member, path=address.path
        )
        if not self.direct:
            Proxy(message_bus, self.connection, timeout=10.0).AddMatch(rule)
        with self.connection.filter(rule, queue=deque(maxlen=10_000)) as queue:
            yield queue

    def next_signal(self, queue: deque[Message], *, timeout_seconds: float) -> tuple[Any, ...]:
        """Wait for the next collected signal. Raises TimeoutError, BusError."""
        try:
            message = self.connection.recv_until_filtered(queue, timeout=timeout_seconds)
        except TimeoutError:
            raise
        except OSError as error:
            raise BusError(f"the system bus went away: {error}") from error
        return tuple(message.body)

    def _send(self, message: Message, timeout_seconds: float) -> tuple[Any, ...]:
        try:
            reply = self.connection.send_and_get_reply(message, timeout=timeout_seconds)
            return tuple(unwrap_msg(reply))
        except DBusErrorResponse as error:
            text = str(error.data[0]) if error.data else error.name
            raise CallError(error.name, text) from error
        except TimeoutError as error:
            raise BusError(f"the system bus did not answer in {timeout_seconds:g} s") from error
        except OSError as error:
            raise BusError(f"the system bus went away: {error}") from error
        except _NONSENSE as error:
            raise BusError(f"the system bus sent what is no message: {error!r}") from error


def dial(path: Path = SYSTEM_BUS, *, timeout_seconds: float = 5.0) -> Bus:
    """Open a connection, to be closed by whoever asked. Raises BusError."""
    try:
        wire = prep_socket(str(path), timeout=timeout_seconds)
        try:
            return Bus(_Connection(wire, timeout_seconds=timeout_seconds))
        except BaseException:
            wire.close()
            raise
    except (OSError, DBusErrorResponse, AuthenticationError, *_NONSENSE) as error:
        raise BusError(
            f"cannot reach the system bus at {path}: {error}",
            hint="see: systemctl status dbus.socket",
        ) from error


@contextlib.contextmanager
def connect(path: Path = SYSTEM_BUS, *, timeout_seconds: float = 5.0) -> Iterator[Bus]:
    """Open a connection for a while. Raises BusError."""
    bus = dial(path, timeout_seconds=timeout_seconds)
    try:
        yield bus
    finally:
        bus.close()


@contextlib.contextmanager
def connect_direct(path: Path, *, owner: int, timeout_seconds: float = 5.0) -> Iterator[Bus]:
    """Open a connection to the socket of a user's own service. Raises BusError.

    Users own the folder that it stands in: it is used only if their own process listens there,
    lest a link should lead to another's.
    """
    wire = socket.socket(socket.AF_UNIX)
    try:
        _greet(wire, path, owner, timeout_seconds)
        connection = _DirectConnection(wire, timeout_seconds=timeout_seconds)
    except OSError as error:
        wire.close()
        raise BusError(f"cannot reach {path}: {error}") from error
    except BaseException:
        wire.close()
        raise
    try:
        yield Bus(connection, direct=True)
    finally:
        connection.close()


def _greet(wire: socket.socket, path: Path, owner: int, timeout_seconds: float) -> None:
    """Connect and authenticate, all said at once.

    What came right behind a BEGIN of its own would be read with it, and answered only when more
    comes: so sd-bus does it where it is the server.
    """
    wire.settimeout(timeout_seconds)
    wire.connect(str(path))
    _check_owner(wire, path, owner)
    who = str(os.geteuid()).encode().hex()
    wire.sendall(f"\0AUTH EXTERNAL {who}\r\nBEGIN\r\n".encode())
    said = b""
    while not said.endswith(b"\r\n") and len(said) < _GREETING_BYTES:
        part = wire.recv(1)  # What follows is a message already.
        if not part:
            break
        said += part
    if not said.startswith(b"OK "):
        raise BusError(f"what listens at {path} does not let us in: {said!r}")
    wire.settimeout(None)


def _check_owner(wire: socket.socket, path: Path, owner: int) -> None:
    raw = wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid = struct.unpack("=iII", raw)[1]
    if uid != owner:
        raise BusError(f"what listens at {path} belongs to user {uid}, not to {owner}")
