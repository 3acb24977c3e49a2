"""Report what this node's own policy lets an operator do here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from narthex_exporter.collectors.spec import Node, Option, Sample, collector, gauge
from narthex_exporter.sources.ownpolicy import OwnPolicies

# The words of the policy file, least to most.
MODES: Final = ("off", "read-only", "manage")
DANGERS: Final = ("safe", "reversible", "disruptive", "destructive")
MODE = gauge(
    "narthex_policy_mode", "Whether this is how much the actor does here at all.", ("mode",)
)
ALLOWED = gauge(
    "narthex_policy_allowed",
    "Whether actions of a family may be of a danger; 0 also where the mode lets none act.",
    ("family", "danger"),
)
ROOT_EQUIVALENT = gauge(
    "narthex_policy_root_equivalent_actions", "How many actions that equal root are allowed."
)
ACTION = gauge(
    "narthex_actor_action_allowed",
    "Whether an action may be run here on something, by the policy that the actor reads.",
    ("action",),
)
APPROVALS = gauge(
    "narthex_policy_required_approvals",
    "How many other people must approve what is of a danger.",
    ("danger",),
)
INFO = gauge("narthex_policy_info", "The SHA-256 of the policy file, as a label; 1.", ("sha256",))
VALID = gauge(
    "narthex_policy_valid", "Whether the policy file is right; with a wrong one nobody acts."
)
CHANGED = gauge(
    "narthex_policy_changed_timestamp_seconds",
    "When the policy file was last changed, in unixtime; 0 where there is none.",
)
FILE = Option("file", "/etc/narthex/policy.yaml", Path, "The actor's policy file.")


@collector(
    name="policy",
    metrics=(MODE, ALLOWED, ACTION, APPROVALS, ROOT_EQUIVALENT, INFO, VALID, CHANGED),
    options=(FILE,),
    every_seconds=60,
    limit_seconds=30,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report what this node's own policy lets an operator do here."""
    policy = node.source(OwnPolicies).read(node.setting(FILE))
    for mode in MODES:
        yield MODE.at(int(mode == policy.mode), mode)
    acts = policy.mode == "manage"
    for family, most in sorted(policy.danger.items()):
        for danger in DANGERS:
            below = most in DANGERS and DANGERS.index(danger) <= DANGERS.index(most)
            yield ALLOWED.at(int(acts and below), family, danger)
    for action, allowed in sorted(policy.actions.items()):
        yield ACTION.at(int(allowed), action)
    for danger in DANGERS:
        yield APPROVALS.at(policy.approvals.get(danger, 0), danger)
    yield ROOT_EQUIVALENT.at(policy.root_equivalent)
    if policy.sha256:
        yield INFO.at(1, policy.sha256)
    yield VALID.at(int(not policy.error))
    yield CHANGED.at(policy.changed_seconds)
