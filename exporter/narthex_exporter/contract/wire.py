"""The JSON that crosses between operator and node. ``docs/protocol.md`` tells it in prose.

Within protocol 1 only additions are made: readers ignore fields that they do not know.
"""

import base64
import enum
import hashlib
import json
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.spec import Action, Danger, Follow, Query

PROTOCOL: Final = 1
MAX_AUDIT_ROWS: Final = 500
MAX_BODY_BYTES: Final = 1 << 20
# A ticket names the whole target, and signers sign targets of at most 1 KiB.
MAX_PARAMS_CHARACTERS: Final = 900


class Message(BaseModel):
    """Base of every message: unknown fields are ignored, for forward compatibility."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Problem(Message):
    """An error in RFC 9457's shape; ``application/problem+json``.

    ``type`` is a stable short name (``ticket-invalid``, ``resource-busy``), ``detail`` tells a
    person what happened to what, ``hint`` what to do next.
    """

    type: str
    title: str
    status: int
    detail: str = ""
    hint: str = ""
    errors: tuple["FieldError", ...] = ()
    run: str | None = None


class FieldError(Message):
    """One invalid field: ``path`` is dotted (``params.unit``)."""

    path: str
    message: str


class ActionManifest(Message):
    """One action as a node advertises it."""

    name: str
    title: str
    summary: str
    description: str = ""
    danger: Danger
    permission: str
    timeout_seconds: float
    params: dict[str, Any]
    inverse: str | None = None
    root_equivalent: bool = False
    approvals: int = 0
    available: bool = True
    unavailable_reason: str = ""


class QueryManifest(Message):
    """One query as a node advertises it."""

    name: str
    title: str
    summary: str
    permission: str
    params: dict[str, Any]
    available: bool = True
    unavailable_reason: str = ""


class Manifest(Message):
    """What a node can do, and who it is.

    ``instance`` changes each time the actor starts; ``policy`` is the node policy's summary
    (mode, and the danger ceiling of each family), for people: the node judges by its own file.
    """

    protocol: int = PROTOCOL
    version: str
    node: str
    instance: str
    boot_id: str
    policy: dict[str, Any]
    actions: tuple[ActionManifest, ...]
    queries: tuple[QueryManifest, ...]
    follows: tuple[QueryManifest, ...] = ()


class PlannedStep(Message):
    """One step as shown to a person, with its exact content."""

    text: str
    exact: dict[str, Any]


class UndoHint(Message):
    """The action that undoes a run, with its parameters."""

    action: str
    params: dict[str, Any]


class Offer(Message):
    """Another action that the plan offers instead, with its parameters, and why."""

    text: str
    action: str
    params: dict[str, Any]


class PlanReply(Message):
    """What a run would do. ``digest`` goes into the run's request: what runs is what was shown.

    ``approvals`` is how many people besides whoever asks the node's policy wants to approve.
    ``confirm_seconds`` is within how long the operator must confirm what could cut it off, 0
    where nothing could.
    """

    action: str
    resource: str
    danger: Danger
    steps: tuple[PlannedStep, ...]
    notes: tuple[str, ...] = ()
    offers: tuple[Offer, ...] = ()
    diff: str = ""
    digest: str
    complete: bool = True
    approvals: int = 0
    confirm_seconds: float = 0.0
    undo: UndoHint | None = None


class PlanRequest(Message):
    """Ask what a run would do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    params: dict[str, Any]


class QueryRequest(Message):
    """Ask a query."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    params: dict[str, Any] = {}


class RunRequest(Message):
    """Ask for a run. ``plan`` is the digest of the plan that was shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    params: dict[str, Any]
    plan: str
    reason: str = ""


class RunState(enum.StrEnum):
    """Where a run stands.

    ``unapproved``: the operator waits for people who approve it · ``unknown``: until its node has
    been asked · ``confirming``: done, and brought back unless the operator confirms over a new
    connection · ``reverted``: it was brought back · ``expired``: nobody approved it in time.
    """

    UNAPPROVED = "unapproved"
    QUEUED = "queued"
    RUNNING = "running"
    CONFIRMING = "confirming"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    REVERTED = "reverted"
    EXPIRED = "expired"
    LOST = "lost"
    UNKNOWN = "unknown"

    @property
    def final(self) -> bool:
        """Tell whether it is over: it can no longer change."""
        return self not in _OPEN


_OPEN: Final = frozenset(
    {
        RunState.UNAPPROVED,
        RunState.QUEUED,
        RunState.RUNNING,
        RunState.CONFIRMING,
        RunState.UNKNOWN,
    }
)


class StepRecord(Message):
    """One step of a run, with what it printed (head and tail kept)."""

    text: str
    state: RunState
    code: int | None = None
    output: str = ""
    truncated: bool = False
    started_at: AwareDatetime | None = None
    duration_seconds: float | None = None


class Run(Message):
    """One run, as its node tells it. ``after`` is the resource's state, re-read after the run.

    ``undo`` is how to undo it once it has succeeded, where that can be done.
    """

    id: str
    action: str
    resource: str
    state: RunState
    params: dict[str, Any]
    steps: tuple[StepRecord, ...] = ()
    error: str = ""
    hint: str = ""
    after: dict[str, Any] | None = None
    undo: UndoHint | None = None
    confirm_until: AwareDatetime | None = None
    accepted_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None


class StreamMessage(Message):
    """One text message of a live stream: a result of it, or why there will be no more."""

    data: dict[str, Any] | None = None
    problem: Problem | None = None


class TerminalSize(Message):
    """The one text message that a terminal takes: how large the screen is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: int = Field(ge=1, le=1000, strict=True)
    rows: int = Field(ge=1, le=1000, strict=True)


class AuditReply(Message):
    """The head of the node's audit chain: SHA-256 of its newest row, and how many there are."""

    seq: int
    head: str


class AuditRows(Message):
    """Rows of the node's audit chain as they stand there, on from one that was asked for.

    ``first`` is the oldest row that the node still has (older ones go by rotation), 0 where it
    has none; ``seq`` and ``head`` are its newest one's.
    """

    seq: int = Field(ge=0, lt=1 << 53)
    head: str = Field(max_length=64)
    first: int = Field(ge=0, lt=1 << 53)
    rows: tuple[dict[str, Any], ...] = ()


def describe_action(
    action: Action[Any], *, unavailable: str = "", approvals: int = 0
) -> ActionManifest:
    """Derive an action's manifest from its declaration and what the node's policy asks for."""
    return ActionManifest(
        name=action.name,
        title=action.title,
        summary=action.summary,
        description=action.description,
        danger=action.danger,
        permission=action.permission,
        timeout_seconds=action.timeout_seconds,
        params=action.params.model_json_schema(),
        inverse=action.inverse,
        root_equivalent=action.root_equivalent,
        approvals=approvals,
        available=not unavailable,
        unavailable_reason=unavailable,
    )


def describe_query(
    query: Query[Any, Any] | Follow[Any, Any], *, unavailable: str = ""
) -> QueryManifest:
    """Derive the manifest of a query, or of what can be followed, from its declaration."""
    return QueryManifest(
        name=query.name,
        title=query.title,
        summary=query.summary,
        permission=query.permission,
        params=query.params.model_json_schema(),
        available=not unavailable,
        unavailable_reason=unavailable,
    )


def encode_params(params: dict[str, Any]) -> str:
    """Write parameters for a query string: base64url of their JSON, without padding."""
    text = json.dumps(params, sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def decode_params(text: str) -> Any:
    """Read what ``encode_params`` wrote. Raises ValueError."""
    if len(text) > MAX_PARAMS_CHARACTERS:
        raise ValueError(f"at most {MAX_PARAMS_CHARACTERS} characters of parameters")
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    return strict_json(raw)


def plan_digest(action: str, resource: str, steps: list[dict[str, Any]]) -> str:
    """Hash a plan's exact content: SHA-256 of its JSON with sorted keys, as hex."""
    text = json.dumps([action, resource, steps], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def new_run_id(clock: Callable[[], float] = time.time) -> str:
    """Make a UUIDv7 (RFC 9562): sortable by time, the run's one name everywhere."""
    milliseconds = int(clock() * 1000) & (1 << 48) - 1
    value = milliseconds << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class DuplicateKeyError(NarthexError):
    """A JSON object names one key twice."""


def strict_json(body: bytes) -> Any:
    """Parse JSON, refusing duplicate keys: ``json`` alone keeps the last and tells nobody.

    Raises ValueError (with DuplicateKeyError as one cause) for anything that is not JSON.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            raise DuplicateKeyError("a JSON object names one key twice")
        return found

    try:
        return json.loads(body, object_pairs_hook=pairs, parse_constant=_no_constant)
    except (UnicodeDecodeError, RecursionError, DuplicateKeyError) as error:
        raise ValueError(str(error)) from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
