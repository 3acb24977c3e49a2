"""The operator's errors, as people and API clients meet them.

::

    NarthexError (narthex_exporter.contract)
    ├── RefusedError              policy or state says no                      409
    └── OperatorError
        ├── NotSignedInError      no session, no valid token                   401
        ├── DeniedError           signed in, but not allowed                   403
        ├── NotFoundError         no such thing, or not one you may see        404
        ├── ConflictError         the thing is not in the state you think      409
        ├── InvalidError          a field is wrong; carries field paths        422
        ├── LimitedError          too many tries; carries seconds to wait      429
        └── UnreachableError      a node or service does not answer            502
            └── ActorOffError     the node answers, its actor is not enabled   503
"""

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.wire import FieldError, Problem

__all__ = [
    "ActorOffError",
    "ConflictError",
    "DeniedError",
    "InvalidError",
    "LimitedError",
    "NarthexError",
    "NodeProblemError",
    "NotFoundError",
    "NotSignedInError",
    "OperatorError",
    "UnreachableError",
]


class OperatorError(NarthexError):
    """Base of the operator's errors. ``kind`` is the problem type, ``status`` the HTTP status."""

    kind = "internal"
    status = 500


class NotSignedInError(OperatorError):
    """Nobody is signed in, or the session or token is no longer valid."""

    kind = "not-signed-in"
    status = 401


class DeniedError(OperatorError):
    """The actor lacks a permission, which the message names."""

    kind = "denied"
    status = 403


class NotFoundError(OperatorError):
    """There is no such thing, or the actor may not know of it."""

    kind = "not-found"
    status = 404


class ConflictError(OperatorError):
    """The thing is not in the state that the request supposes."""

    kind = "conflict"
    status = 409


class InvalidError(OperatorError):
    """Some fields are wrong; ``errors`` has a path and a message for each."""

    kind = "invalid"
    status = 422

    def __init__(
        self, message: str, *, errors: tuple[FieldError, ...] = (), hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.errors = errors


class LimitedError(OperatorError):
    """Too many tries; ``retry_after_seconds`` says how long to wait."""

    kind = "limited"
    status = 429

    def __init__(self, message: str, *, retry_after_seconds: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class UnreachableError(OperatorError):
    """A node, or a service that we depend on, does not answer."""

    kind = "unreachable"
    status = 502


class ActorOffError(UnreachableError):
    """The node answers, but its actor is not enabled there."""

    kind = "actor-off"
    status = 503


class NodeProblemError(OperatorError):
    """A node refused a request and said why; ``problem`` is its answer, as hostile as any."""

    kind = "node-refused"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title, hint=problem.hint)
        self.problem = problem
        self.kind = problem.type
        self.status = problem.status if 400 <= problem.status < 500 else 502  # noqa: PLR2004
