"""Report what this node's actor did, in its own words: no operator has a part in them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from narthex_exporter.collectors.spec import (
    NoData,
    Node,
    Option,
    Sample,
    collector,
    counter,
    gauge,
)
from narthex_exporter.sources.actorstatus import read_actor_status

# It writes every 15 seconds: one that has been silent for four times that was killed.
SILENT_SECONDS: Final = 60.0
RUNNING = gauge("narthex_actor_running", "Whether the actor runs and tells of itself.")
TOLD = gauge(
    "narthex_actor_status_timestamp_seconds", "When the actor last told of itself, in unixtime."
)
ACCEPTED = counter(
    "narthex_actor_runs_accepted_total",
    "Runs that the actor accepted since this node was enrolled, by action.",
    ("action",),
)
REFUSED = counter(
    "narthex_actor_requests_refused_total",
    "Requests that the actor refused: by its policy, or for their ticket, by reason.",
    ("reason",),
)
ROWS = counter("narthex_actor_audit_rows_total", "Rows that the actor's audit has had.")
UNDER_WAY = gauge("narthex_actor_runs_under_way", "Runs that are being carried out.")
POLICY = gauge(
    "narthex_actor_policy_info",
    "Always 1; the labels tell the policy in use: its mode, and a hash of what it means.",
    ("mode", "sha256"),
)
FILE = Option("file", "/run/narthex/actor.json", Path, "Where the actor tells of itself.")


@collector(
    name="actor",
    metrics=(RUNNING, TOLD, ACCEPTED, REFUSED, ROWS, UNDER_WAY, POLICY),
    options=(FILE,),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report what this node's actor did, in its own words: no operator has a part in them."""
    status = read_actor_status(node.setting(FILE))
    if status is None:
        raise NoData("no actor has run here since the machine started")
    fresh = abs(time.time() - status.written_at) < SILENT_SECONDS
    yield RUNNING.at(int(status.running and fresh))
    yield TOLD.at(status.written_at)
    for action, count in sorted(status.runs_accepted.items()):
        yield ACCEPTED.at(count, action)
    for reason, count in sorted(status.requests_refused.items()):
        yield REFUSED.at(count, reason)
    yield ROWS.at(status.audit_seq)
    yield UNDER_WAY.at(status.runs_under_way)
    yield POLICY.at(1, status.mode, status.policy_sha256)
