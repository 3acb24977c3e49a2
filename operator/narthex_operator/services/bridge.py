"""Carry a live stream between a node and a browser, as long as both are well and it may be."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from narthex_exporter.bucket import Bucket
from narthex_exporter.contract.wire import TerminalSize
from narthex_exporter.transport.websocket import (
    GOING_AWAY,
    INTERNAL,
    NORMAL,
    POLICY,
    WebSocket,
)

log = logging.getLogger(__name__)

# How soon a session that ended is noticed, and a right that was taken away.
CHECK_SECONDS: Final = 1.0
_MESSAGES_AT_ONCE: Final = 200
_MESSAGES_PER_SECOND: Final = 50
_PAUSE_SECONDS: Final = 0.1
_NODES_WORDS: Final = 120


@dataclass(slots=True, kw_only=True)
class Bridge:
    """One stream.

    ``read`` turns a node's text message into what the browser is told, and raises ValueError for
    what it does not understand; without it the stream is a terminal: bytes both ways, as they are.
    ``check`` is told whether somebody typed since, and says why it must end; empty while it may.
    """

    browser: WebSocket
    node: WebSocket
    check: Callable[[bool], str]
    read: Callable[[str], Iterable[str]] | None = None
    clock: Callable[[], float] = time.monotonic
    _rate: Bucket = field(init=False)
    # What came and may not be told yet: nothing more is read meanwhile, so that the node waits.
    _late: deque[str | bytes] = field(default_factory=deque, init=False)
    _typed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._rate = Bucket(_MESSAGES_AT_ONCE, _MESSAGES_PER_SECOND, clock=self.clock)

    def carry(self, stopping: threading.Event) -> str:
        """Carry until one side ends it or it may not be any more; give the reason."""
        checked = self.clock()
        while self.browser.closed is None and (self.node.closed is None or self._late):
            self._turn()
            if stopping.is_set():
                self.end(GOING_AWAY, "the operator stops")
            elif self.clock() - checked >= CHECK_SECONDS:
                checked = self.clock()
                why = self.check(self._typed)
                self._typed = False
                if why:
                    self.end(POLICY, why)
        return self._farewell()

    def end(self, code: int, why: str) -> None:
        """End it, and say so to both sides."""
        self.browser.close(code, why)
        self.node.close(NORMAL, "it is over")

    def _turn(self) -> None:
        self.node.beat()
        self.browser.wait(
            _PAUSE_SECONDS if self._late else 1.0,
            wires=((self.node.wire, self.browser.has_room and not self._late),),
            reads=self.node.has_room,
        )
        self._from_node()
        if self.node.has_room:
            self._from_browser()

    def _from_node(self) -> None:
        if self.browser.has_room and not self._late:
            self._late.extend(self.node.messages())
        while self._late and self.browser.has_room and self._may_tell():
            message = self._late.popleft()
            if self.read is None:
                if isinstance(message, bytes):
                    self.browser.send(message)
            elif not isinstance(message, str) or not self._told(self.read, message):
                self.end(INTERNAL, "the node answers something else than is expected of it")
                return

    def _may_tell(self) -> bool:
        return self.read is None or self._rate.take()

    def _told(self, read: Callable[[str], Iterable[str]], message: str) -> bool:
        try:
            for told in read(message):
                self.browser.send(told)
        except (ValueError, ArithmeticError) as error:  # a ratio may be infinite
            log.warning("stream.not-understood", extra={"error": type(error).__name__})
            return False
        return True

    def _from_browser(self) -> None:
        for message in self.browser.messages():
            if self.read is not None:
                self.end(POLICY, "nothing is to be said here")
                return
            if isinstance(message, bytes):
                self._typed = True
                self.node.send(message)
            elif (size := _size(message)) is not None:
                self.node.send(size.model_dump_json())
            else:
                self.end(POLICY, "a text message must be the terminal's size")
                return

    def _farewell(self) -> str:
        """Close what is still open; a node's own words are cut short and stay words."""
        if self.browser.closed is None and self.node.closed is not None:
            ended = self.node.closed
            code = ended.code if ended.code in {NORMAL, GOING_AWAY, POLICY} else INTERNAL
            self.browser.close(code, ended.reason[:_NODES_WORDS])
        gone = self.browser.closed
        self.node.close(NORMAL, "it is over")
        self.browser.finish()
        self.node.finish(seconds=0.5)
        return (gone.reason or f"closed with code {gone.code}") if gone is not None else ""


def _size(message: str) -> TerminalSize | None:
    try:
        return TerminalSize.model_validate_json(message)
    except ValidationError:
        return None
