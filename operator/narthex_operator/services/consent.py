"""Demand what a person must have read, typed and said before something happens."""

import re
from typing import Any, Final

from narthex_exporter.contract.spec import Action, Danger
from narthex_exporter.contract.wire import FieldError
from narthex_operator.errors import InvalidError

DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
MAX_REASON: Final = 500
# Control characters, line breaks, what turns the direction of writing, half a character.
UNSHOWN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def check_consent(
    action: Action[Any], resource: str, *, plan: str, reason: str, typed: str
) -> None:
    """Demand what a person must have done before something of this danger runs."""
    if not DIGEST.fullmatch(plan):
        raise invalid("plan", "must be the digest of the plan that was shown")
    check_reason(reason)
    if action.danger.rank >= Danger.DISRUPTIVE.rank and not reason:
        raise invalid("reason", f"must say why: {action.name} is {action.danger}")
    if action.danger is Danger.DESTRUCTIVE and typed != resource:
        raise invalid("confirmation", f"must be {resource}, typed in full")


def check_reason(reason: str) -> None:
    """Let a reason be one short line of text. Raises InvalidError."""
    if len(reason) > MAX_REASON:
        raise invalid("reason", f"must be at most {MAX_REASON} characters long")
    if UNSHOWN.search(reason):
        raise invalid("reason", "must be one line of text, without control characters")


def invalid(path: str, message: str) -> InvalidError:
    """Make the error of one wrong field."""
    return InvalidError(f"{path} {message}", errors=(FieldError(path=path, message=message),))
