"""Ask programs that print what no file tells: smartctl, lvs, virsh and their like.

The one module of the metrics that starts processes, and only for collectors with a schedule of
their own: never in the path of a scrape. There is no shell, and no word of what is run comes from
the network.
"""

import contextlib
import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from typing import IO, Final

from narthex_exporter.errors import UnavailableError

_MOST_BYTES: Final = 16 << 20
_CHUNK: Final = 8192
# Programs of the system only; messages untranslated, to be parsed.
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "HOME": "/nonexistent",
}


class MissingError(UnavailableError):
    """There is no such program on this machine."""


class ProgramError(UnavailableError):
    """A program took too long or printed too much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a program ended: ``code`` is negative where a signal ended it, as subprocess tells."""

    code: int
    output: bytes
    error: str


def run(argv: tuple[str, ...], *, timeout_seconds: float = 30.0) -> Done:
    """Run a program to its end; at the time's end it and its children are killed.

    Raises MissingError, ProgramError.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - a tuple of our own words
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError(f"there is no program {argv[0]} on this machine") from error
    except OSError as error:
        raise ProgramError(f"{argv[0]} cannot be started: {error.strerror}") from error
    late = threading.Event()
    errors: list[bytes] = []

    def give_up() -> None:
        late.set()
        _kill(process.pid)

    assert process.stdout is not None  # noqa: S101 - piped above
    assert process.stderr is not None  # noqa: S101
    reader = threading.Thread(target=_drain, args=(process.stderr, errors), daemon=True)
    timer = threading.Timer(timeout_seconds, give_up)
    with process:
        reader.start()
        timer.start()
        output = process.stdout.read(_MOST_BYTES + 1)
        if len(output) > _MOST_BYTES:
            _kill(process.pid)
        # While it is not reaped, its number and its group are nobody else's.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        timer.cancel()
        timer.join()
        _kill(process.pid)
        reader.join(timeout=1.0)
        code = process.wait()
    if late.is_set():
        raise ProgramError(f"{argv[0]} did not end within {timeout_seconds:g} s")
    if len(output) > _MOST_BYTES:
        raise ProgramError(f"{argv[0]} printed more than {_MOST_BYTES >> 20} MiB")
    return Done(code=code, output=output, error=b"".join(errors).decode("utf-8", "replace"))


def _drain(pipe: IO[bytes], kept: list[bytes]) -> None:
    """Read all that is said, and keep the beginning."""
    with contextlib.suppress(OSError, ValueError):
        while chunk := pipe.read(_CHUNK):
            if not kept:
                kept.append(chunk)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
