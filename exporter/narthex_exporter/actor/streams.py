"""Tell what is followed to whoever listens, for as long as they do and may."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from narthex_exporter.actor.engine import Engine, NotAvailableError, RateError
from narthex_exporter.actor.problems import as_problem
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.spec import Follow, QueryParams, Result
from narthex_exporter.contract.wire import StreamMessage
from narthex_exporter.transport.slots import Slots
from narthex_exporter.transport.websocket import GOING_AWAY, INTERNAL, NORMAL, POLICY, WebSocket

log = logging.getLogger(__name__)

MOST_STREAMS: Final = 48
MOST_STREAMS_EACH: Final = 24
CHECK_SECONDS: Final = 15.0


class Audience:
    """Whoever listens on a WebSocket, as a generator's Stop.

    While the generator waits, what is sent and heard moves: one thread does both. ``check`` is
    called now and then, and raises what ends the stream.
    """

    def __init__(
        self,
        socket: WebSocket,
        *,
        stopping: threading.Event,
        check: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._socket = socket
        self._stopping = stopping
        self._check = check
        self._clock = clock
        self._checked = clock()

    @property
    def over(self) -> bool:
        """Tell whether nobody listens any more."""
        return self._socket.closed is not None

    def wait(self, seconds: float) -> bool:
        """Wait; True as soon as nobody listens any more."""
        deadline = self._clock() + seconds
        while not self.over and (left := deadline - self._clock()) > 0:
            self._turn(left)
        return self.over

    def readable(self, descriptor: int, seconds: float) -> bool:
        """Wait until a descriptor may have something to read; True once nobody listens."""
        self._turn(seconds, files=(descriptor,))
        return self.over

    def tell(self, message: StreamMessage) -> None:
        """Send a message, once the audience has taken in most of what it was sent."""
        while not self.over and not self._socket.has_room:
            self._turn(1.0)
        self._socket.send(message.model_dump_json(exclude_none=True))

    def _turn(self, seconds: float, *, files: tuple[int, ...] = ()) -> None:
        self._socket.wait(seconds, files=files)
        if self._socket.messages():
            self._socket.close(POLICY, "nothing is to be said here")
        if self._stopping.is_set():
            self._socket.close(GOING_AWAY, "the actor stops")
        now = self._clock()
        if now - self._checked >= CHECK_SECONDS:
            self._checked = now
            self._check()


@dataclass(slots=True, kw_only=True)
class Streams:
    """The live streams of one actor: bounded, in all and for each user."""

    engine: Engine
    slots: Slots = field(default_factory=lambda: Slots(MOST_STREAMS, MOST_STREAMS_EACH))

    def admit(self, follow: Follow[Any, Any]) -> None:
        """Refuse what cannot or may not be followed here. Raises PolicyError and others."""
        self.engine.policy.judge_query()
        why = self.engine.unavailable(follow.needs)
        if why:
            raise NotAvailableError(f"{follow.name} is not available on this node: {why}")

    @contextlib.contextmanager
    def slot(self, user: str) -> Iterator[None]:
        """Hold a stream's place. Raises RateError where there is none."""
        if not self.slots.enter(user):
            raise RateError(
                "too many live streams are open on this node", hint="close some, then try again"
            )
        try:
            yield
        finally:
            self.slots.leave(user)

    def tell(
        self,
        follow: Follow[Any, Any],
        params: QueryParams,
        socket: WebSocket,
        *,
        user: str,
        stopping: threading.Event,
    ) -> None:
        """Tell until nobody listens, and why where it ends before."""
        audience = Audience(socket, stopping=stopping, check=lambda: self.admit(follow))
        try:
            with self.slot(user):
                results: Iterator[Result] = follow.tell(params, self.engine.facts, audience)
                with contextlib.closing(results):  # type: ignore[type-var] # they are generators
                    for result in results:
                        audience.tell(StreamMessage(data=result.model_dump(mode="json")))
                        if audience.over:
                            break
            socket.close(NORMAL, "it has ended")
        except NarthexError as error:
            problem = as_problem(error)
            socket.send(StreamMessage(problem=problem).model_dump_json(exclude_none=True))
            socket.close(POLICY, problem.type)
        except Exception:
            # The boundary of a stream: a mistake of ours ends it, and says no more than that.
            log.exception("stream.fault", extra={"follow": follow.name})
            socket.close(INTERNAL, "a fault of the actor")
        socket.finish()
