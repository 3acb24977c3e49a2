"""Tell errors as problems: one shape, one stable name and status for each kind."""

from typing import Final

from narthex_exporter.actor.audit import AuditError, DamagedError
from narthex_exporter.actor.engine import (
    BusyError,
    ConflictError,
    NotAvailableError,
    NotConfirmableError,
    PlanChangedError,
    RateError,
    UnknownRunError,
)
from narthex_exporter.actor.policy import PolicyError
from narthex_exporter.contract.errors import NarthexError, RefusedError
from narthex_exporter.contract.wire import FieldError, Problem
from narthex_exporter.errors import UnavailableError
from narthex_exporter.transport.websocket import HandshakeError


class BodyError(NarthexError):
    """A body is not the JSON that is due."""


class UnknownNameError(NarthexError):
    """No action or query has that name; ``kind`` says which was meant."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"this node's release knows no {kind} {name[:100]!r}")
        self.kind = kind


class InvalidError(NarthexError):
    """Parameters break the declared model."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__("some fields are not valid")
        self.errors = errors


# What each known error becomes: the problem's type and status. The first match counts.
_PROBLEMS: Final[tuple[tuple[type[NarthexError], str, int], ...]] = (
    (BodyError, "body-invalid", 400),
    (HandshakeError, "upgrade-required", 426),
    (PolicyError, "policy-refused", 403),
    (UnknownRunError, "unknown-run", 404),
    (InvalidError, "params-invalid", 422),
    (NotAvailableError, "not-available", 409),
    (PlanChangedError, "plan-changed", 409),
    (ConflictError, "run-conflict", 409),
    (NotConfirmableError, "not-confirmable", 409),
    (BusyError, "resource-busy", 409),
    (RefusedError, "refused", 409),
    (RateError, "rate-limited", 429),
    (DamagedError, "audit-damaged", 409),
    (AuditError, "unavailable", 503),
    (UnavailableError, "unavailable", 503),
)


def as_problem(error: NarthexError) -> Problem:
    """Tell a known error in the one shape of errors."""
    if isinstance(error, UnknownNameError):
        kind, status = f"unknown-{error.kind}", 404
    else:
        kind, status = next(
            ((name, code) for family, name, code in _PROBLEMS if isinstance(error, family)),
            ("refused", 409),
        )
    return Problem(
        type=kind,
        title=kind.replace("-", " "),
        status=status,
        detail=str(error),
        hint=error.hint,
        errors=error.errors if isinstance(error, InvalidError) else (),
        run=error.run if isinstance(error, BusyError) else None,
    )
