"""Ask about a node's packet filter."""

import datetime as dt
from typing import Final

from pydantic import AwareDatetime

from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.firewallfacts import FirewallRuleFact
from narthex_exporter.contract.spec import QueryParams, Result, query

_MOST_RULES: Final = 2000
_MOST_CHARACTERS: Final = 400_000


class GetParams(QueryParams):
    """Parameters of firewall.get."""


class ExportParams(QueryParams):
    """Parameters of firewall.export."""


class Backend(Result):
    """One way to filter. ``is_manager`` says that changes go through it."""

    name: str
    installed: bool
    active: bool
    is_manager: bool
    why: str


class DefaultPolicy(Result):
    """What becomes of a packet that no rule decided, in one place."""

    backend: str
    place: str
    direction: str
    policy: str


class Rule(Result):
    """One rule, in one model for every backend; ``raw`` is it in the backend's words.

    ``action`` is ``accept``, ``drop``, ``reject``, ``limit``, ``forward`` or ``other``: that one
    the model cannot tell. ``run`` is the run that made it, where Narthex did.
    """

    backend: str
    id: str
    direction: str
    action: str
    protocol: str
    ports: str
    source: str
    destination: str
    interface: str
    to: str
    limit_per_minute: int
    owner: str
    comment: str
    expires_at: AwareDatetime | None
    is_expired: bool
    run: str
    place: str
    raw: str


class Always(Result):
    """A source that the node's policy always lets in; ``port`` 0 is every port."""

    source: str
    port: int


class Firewall(Result):
    """The packet filter; ``total`` counts all rules."""

    backends: tuple[Backend, ...]
    policies: tuple[DefaultPolicy, ...]
    rules: tuple[Rule, ...]
    total: int
    always_allow: tuple[Always, ...]
    rollback_seconds: float


class Export(Result):
    """The ruleset as nft prints it; ``own`` is Narthex's table alone, to be loaded elsewhere."""

    ruleset: str
    own: str
    truncated: bool


@query(name="firewall.get", title="Firewall")
def get(params: GetParams, facts: Facts) -> Firewall:  # noqa: ARG001
    """Tell which packet filters are in force, their default policies and their rules."""
    view = facts.firewall.look()
    in_force = {one.name for one in view.backends if one.active}
    return Firewall(
        backends=tuple(
            Backend(
                name=one.name,
                installed=one.installed,
                active=one.active,
                is_manager=one.name == view.manager,
                why=one.why,
            )
            for one in view.backends
        ),
        policies=tuple(
            DefaultPolicy(
                backend=one.backend, place=one.place, direction=one.direction, policy=one.policy
            )
            for one in view.policies
            # What an idle ufw would do is not what becomes of a packet.
            if one.backend in in_force
        ),
        rules=tuple(_rule(one) for one in view.rules[:_MOST_RULES]),
        total=len(view.rules),
        always_allow=tuple(
            Always(source=source, port=port) for source, port in view.settings.always_allow
        ),
        rollback_seconds=view.settings.rollback_seconds,
    )


@query(name="firewall.export", title="Ruleset as nft")
def export(params: ExportParams, facts: Facts) -> Export:  # noqa: ARG001
    """Give the ruleset as text that nft reads."""
    view = facts.firewall.look()
    return Export(
        ruleset=view.text[:_MOST_CHARACTERS],
        own=view.own_table[:_MOST_CHARACTERS],
        truncated=len(view.text) > _MOST_CHARACTERS,
    )


def _rule(one: FirewallRuleFact) -> Rule:
    until = one.expires_at_seconds
    return Rule(
        backend=one.backend,
        id=one.id,
        direction=one.direction,
        action=one.action,
        protocol=one.protocol,
        ports=one.ports,
        source=one.source,
        destination=one.destination,
        interface=one.interface,
        to=one.to,
        limit_per_minute=one.limit_per_minute,
        owner=one.owner,
        comment=one.comment,
        expires_at=dt.datetime.fromtimestamp(until, tz=dt.UTC) if until else None,
        is_expired=one.is_expired,
        run=one.run,
        place=one.place,
        raw=one.raw,
    )
