"""Read what containers write, as their engine keeps it, and cut a stream that nobody wants.

The engine puts 8 bytes before each part of what a container without a terminal writes: one for
the stream, three of nothing, four for the length.
"""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from narthex_exporter.contract.containerfacts import LogFact
from narthex_exporter.sources.containerparse import unixtime
from narthex_exporter.sources.enginewire import cut, judged
from narthex_exporter.sources.text import clean

if TYPE_CHECKING:
    from docker import APIClient

LINE_CHARACTERS: Final = 8192
_HEADER_BYTES: Final = 8
_PART_BYTES: Final = 1 << 20
_READ_BYTES: Final = 4096
_STREAMS: Final = {1: "stdout", 2: "stderr"}
_CONNECT_SECONDS: Final = 4.5
_LOOK_SECONDS: Final = 0.2
# Colours and the like (ECMA-48), which are for terminals.
_ANSI: Final = re.compile(
    r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b]{0,1024}(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]{0,8}[0-~]?"
)


def opened(
    client: "APIClient", id_: str, *, lines: int, since_seconds: float, follow: bool
) -> Any:
    """Ask for a container's lines, to be read from the answer. Raises what requests does."""
    response = client.get(
        f"{client.base_url}/v{client.api_version}/containers/{id_}/logs",
        params={
            "stdout": 1, "stderr": 1, "timestamps": 1, "tail": lines,
            "follow": int(follow), "since": f"{since_seconds:.9f}" if since_seconds else 0,
        },
        stream=True,
        timeout=(_CONNECT_SECONDS, None if follow else client.timeout),
    )  # fmt: skip
    return judged(response)


@contextlib.contextmanager
def cut_when(cancelled: Callable[[], bool], response: Any) -> Iterator[None]:
    """End an answer's reading, which may wait for ever, as soon as nobody wants it."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_SECONDS):
            if cancelled():
                cut(response)
                return

    thread = threading.Thread(target=watch, name="cut", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def parts(raw: Any, *, is_terminal: bool) -> Iterator[tuple[str, bytes]]:
    """Cut what is read into messages, each with its stream."""
    if is_terminal:
        yield from _of_terminal(raw.read1)
        return
    read = raw.read
    while len(header := _exactly(read, _HEADER_BYTES)) == _HEADER_BYTES:
        length = int.from_bytes(header[4:], "big")
        part = _exactly(read, min(length, _PART_BYTES))
        left = length - len(part)
        while left > 0 and (rest := read(min(left, _PART_BYTES))):
            left -= len(rest)
        yield _STREAMS.get(header[0], "stdout"), part


def _of_terminal(read: Callable[[int], bytes]) -> Iterator[tuple[str, bytes]]:
    kept = b""
    while chunk := read(_READ_BYTES):
        *whole, kept = (kept + chunk).split(b"\n")
        for line in whole:
            yield "stdout", line + b"\n"
        if len(kept) >= _PART_BYTES:
            yield "stdout", kept
            kept = b""
    if kept:
        yield "stdout", kept


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    found = b""
    while len(found) < count and (chunk := read(count - len(found))):
        found += chunk
    return found


def lines(name: str, messages: Iterator[tuple[str, bytes]]) -> Iterator[LogFact]:
    """Put messages together to lines: the engine cuts a long line into several."""
    begun: dict[str, tuple[float, str]] = {}
    for stream, message in messages:
        at, text = _timed(message.decode("utf-8", "replace"))
        before = begun.pop(stream, None)
        if before is not None:
            at, text = before[0], before[1] + text
        if text.endswith("\n") or len(text) > LINE_CHARACTERS:
            yield _line(name, stream, at, text)
        else:
            begun[stream] = at, text
    for stream, (at, text) in begun.items():
        yield _line(name, stream, at, text)


def _timed(message: str) -> tuple[float, str]:
    first, _, rest = message.partition(" ")
    # datetime knows six digits of a second; the engine writes nine.
    at = unixtime(re.sub(r"(\.\d{6})\d+", r"\1", first))
    return (at, rest) if at else (0.0, message)


def _line(name: str, stream: str, at: float, text: str) -> LogFact:
    plain = _ANSI.sub("", text[: 2 * LINE_CHARACTERS].rstrip("\r\n"))
    # What a progress bar overwrote would have been gone on a terminal too.
    plain = plain.rpartition("\r")[2]
    return LogFact(
        container=name, stream=stream, at_seconds=at, text=clean(plain, limit=LINE_CHARACTERS)
    )
