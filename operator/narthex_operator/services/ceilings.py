"""Narrow what is sent to a node below what its own policy allows; never widen it."""

from collections.abc import Mapping
from typing import Any, Final

from narthex_exporter.contract.spec import Action, Catalogue, Danger
from narthex_exporter.contract.wire import FieldError
from narthex_operator.errors import InvalidError

OFF: Final = "off"
# What a family's ceiling may be, least to most.
CEILINGS: Final = (OFF, *map(str, Danger))


def narrowed(ceiling: Mapping[str, str], action: Action[Any]) -> str:
    """Say why an action is not sent under a ceiling; empty where it may be."""
    most = ceiling.get(action.family)
    if most is None or (most != OFF and action.danger.rank <= Danger(most).rank):
        return ""
    allowed = "nothing" if most == OFF else f"at most what is {most}"
    return (
        f"this operator sends {allowed} of the {action.family} actions to the node;"
        f" {action.name} is {action.danger}"
    )


def checked(ceiling: Mapping[str, str], catalogue: Catalogue) -> dict[str, str]:
    """Check a ceiling as somebody wrote it. Raises InvalidError, which names each wrong part."""
    families = {action.family for action in catalogue.actions.values()}
    wrong = [
        FieldError(path=f"ceiling.{family[:64]}", message=why)
        for family, most in ceiling.items()
        for why in (
            "" if family in families else f"there are: {', '.join(sorted(families))}",
            "" if most in CEILINGS else f"must be one of: {', '.join(CEILINGS)}",
        )
        if why
    ]
    if wrong:
        raise InvalidError("the ceiling is not valid", errors=tuple(wrong))
    return dict(sorted(ceiling.items()))
