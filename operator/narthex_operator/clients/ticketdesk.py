"""Have tickets signed together that are wanted at the same time.

The signer writes each down before it signs, and waits until that is on the disk: for many
tickets at once that is one wait. Nobody is kept waiting for others to come: whoever finds the
signer free goes at once, and takes along whoever has come meanwhile.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from narthex_exporter.contract.tickets import Claims
from narthex_operator.errors import OperatorError, UnreachableError
from narthex_operator.signer.messages import MAX_TICKETS


class TicketSigner(Protocol):
    """Whoever holds the ticket key: the signer program."""

    def tickets(self, claims: Sequence[Claims]) -> Sequence[str]:
        """Sign tickets of one subject. Raises UnreachableError or a refusal of the signer's."""
        ...


@dataclass(slots=True, eq=False)
class _Wish:
    claims: Claims
    answer: str | OperatorError | None = None


@dataclass(slots=True)
class TicketDesk:
    """Asks the signer for everybody, one request at a time."""

    signer: TicketSigner
    _wishes: list[_Wish] = field(default_factory=list, init=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def ticket(self, claims: Claims) -> str:
        """Have a ticket signed. Raises UnreachableError or a refusal of the signer's."""
        wish = _Wish(claims)
        with self._lock:
            self._wishes.append(wish)
        with self._turn:
            if wish.answer is None:
                self._sign(self._together_with(wish))
        if not isinstance(wish.answer, str):
            raise wish.answer or OperatorError("a ticket was not signed")
        return wish.answer

    def _together_with(self, wish: _Wish) -> list[_Wish]:
        """Take a wish and others of its subject out of those that wait."""
        with self._lock:
            others = [
                one
                for one in self._wishes
                if one is not wish and one.claims.sub == wish.claims.sub
            ]
            taken = [wish, *others[: MAX_TICKETS - 1]]
            self._wishes = [one for one in self._wishes if one not in taken]
        return taken

    def _sign(self, wishes: Sequence[_Wish]) -> None:
        try:
            signed = self.signer.tickets([wish.claims for wish in wishes])
        except UnreachableError as error:
            for wish in wishes:
                wish.answer = error
        except OperatorError as error:
            if len(wishes) == 1:
                wishes[0].answer = error
                return
            # One that is not to be signed must not cost the others theirs.
            for wish in wishes:
                self._sign([wish])
        else:
            for wish, ticket in zip(wishes, signed, strict=True):
                wish.answer = ticket
