"""Tell whether a TCP port takes a new connection."""

import socket
from typing import Final

SECONDS: Final = 3.05


def can_connect(host: str, port: int, *, seconds: float = SECONDS) -> str:
    """Connect and hang up; say why that was not possible, empty where it was."""
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except TimeoutError:
        return "it does not answer in time"
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""
