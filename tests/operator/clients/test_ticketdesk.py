"""Tickets that are wanted at the same time are signed together; none waits for others to come."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from narthex_exporter.contract.tickets import Claims
from narthex_exporter.contract.wire import new_run_id
from narthex_operator.clients.ticketdesk import TicketDesk
from narthex_operator.errors import LimitedError, OperatorError, UnreachableError
from rig import until


def claims(jti: str, sub: str = "user:1") -> Claims:
    return Claims(
        iss="0" * 16, aud="node:n1", sub=sub, act="manifest", htm="GET", htu="/api/v1/manifest",
        ph="0" * 64, op=new_run_id(), jti=jti, inst="i", nonce="n", iat=0, nbf=0, exp=30,
    )  # fmt: skip


@dataclass
class SlowSigner:
    """Signs when it is let, as a disk does; ``judge`` may refuse."""

    judge: Callable[[Sequence[Claims]], None] = lambda _: None
    go: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    asked: list[list[str]] = field(default_factory=list)

    def tickets(self, claims: Sequence[Claims]) -> list[str]:
        self.entered.set()
        assert self.go.wait(10)
        self.asked.append([one.jti for one in claims])
        assert len({one.sub for one in claims}) == 1
        self.judge(claims)
        return [f"signed-{one.jti}" for one in claims]


def wish_all(signer: SlowSigner, wanted: Sequence[Claims]) -> list[str | OperatorError]:
    """Let the first reach the signer, the others meet it busy; then let it work."""
    desk = TicketDesk(signer)

    def wish(one: Claims) -> str | OperatorError:
        try:
            return desk.ticket(one)
        except OperatorError as error:
            return error

    with ThreadPoolExecutor(len(wanted)) as pool:
        first = pool.submit(wish, wanted[0])
        assert signer.entered.wait(10)
        others = [pool.submit(wish, one) for one in wanted[1:]]
        until(lambda: len(desk._wishes) == len(others), what="all have come")
        signer.go.set()
        return [task.result() for task in (first, *others)]


def test_who_comes_while_the_signer_works_is_signed_together() -> None:
    signer = SlowSigner()
    found = wish_all(signer, [claims(f"j{n}") for n in range(20)])
    assert found == [f"signed-j{n}" for n in range(20)]
    assert [len(batch) for batch in signer.asked] == [1, 19]


def test_two_subjects_are_never_signed_together() -> None:
    signer = SlowSigner()
    found = wish_all(signer, [claims(f"j{n}", f"user:{n % 2}") for n in range(9)])
    assert found == [f"signed-j{n}" for n in range(9)]
    assert sorted(len(batch) for batch in signer.asked) == [1, 4, 4]


def test_one_that_is_refused_costs_no_other_its_ticket() -> None:
    def judge(asked: Sequence[Claims]) -> None:
        if any(one.jti == "j3" for one in asked):
            raise OperatorError("the signer refuses")

    found = wish_all(SlowSigner(judge), [claims(f"j{n}") for n in range(6)])
    assert [n for n, one in enumerate(found) if isinstance(one, OperatorError)] == [3]


@pytest.mark.parametrize(
    "error", [UnreachableError("gone"), LimitedError("too many", retry_after_seconds=5)]
)
def test_a_signer_that_says_no_to_all_is_heard_by_all(error: OperatorError) -> None:
    def judge(_asked: Sequence[Claims]) -> None:
        raise error

    assert wish_all(SlowSigner(judge), [claims(f"j{n}") for n in range(6)]) == [error] * 6


def test_a_silent_signer_is_not_asked_for_each_in_turn() -> None:
    def judge(_asked: Sequence[Claims]) -> None:
        raise UnreachableError("it does not answer in time")

    signer = SlowSigner(judge)
    wish_all(signer, [claims(f"j{n}") for n in range(6)])
    assert len(signer.asked) == 2
