"""Declare an action or a query once; everything else is derived from the declaration."""

import abc
import enum
import inspect
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.steps import Look, Note, Outcome, Step, Undo

NAME: Final = re.compile(r"^[a-z][a-z0-9]*(?:-[a-z0-9]+)*\.[a-z][a-z0-9]*(?:-[a-z0-9]+)*$")


class Danger(enum.StrEnum):
    """How bad it is to run something by mistake, least to worst; see docs/glossary.md."""

    SAFE = "safe"
    REVERSIBLE = "reversible"
    DISRUPTIVE = "disruptive"
    DESTRUCTIVE = "destructive"

    @property
    def rank(self) -> int:
        """Order the levels: 0 for safe to 3 for destructive."""
        return list(Danger).index(self)


# A run that may take longer gets a process of its own, which the actor's end does not end.
JOB_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """Something that an action touches, for the node's policy to judge.

    ``kind`` is ``unit``, ``user``, ``process``, ``container``, ``image``, ``volume``,
    ``network``, ``project``, ``port``, ``file`` or ``program`` (of supervisord); ``names`` are
    all that it goes by (an alias and the unit's own name), any of which may be protected. ``why``
    tells how it is touched, where that is not plain. What is touched only by the way (the unit
    that owns a process) must not be denied, but need not be allowed.
    """

    kind: str
    names: tuple[str, ...]
    why: str = ""
    by_the_way: bool = False


class Params(BaseModel, abc.ABC):
    """Base of every action's parameters: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    @abc.abstractmethod
    def resource(self) -> str:
        """Name the thing acted on (``service/nginx.service``).

        One string for the lock, the audit row and the typed confirmation.
        """

    def targets(self, facts: Facts) -> Iterable[Target]:  # noqa: ARG002
        """Resolve everything that is touched, here and now, for the node's policy."""
        return ()


class QueryParams(BaseModel):
    """Base of every query's parameters: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Result(BaseModel):
    """Base of what a query returns. Readers ignore fields they do not know."""

    model_config = ConfigDict(extra="ignore", frozen=True)


P = TypeVar("P", bound=Params)
Q = TypeVar("Q", bound=QueryParams)
R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """What a run acted on, as it is after the run.

    ``contradiction`` says how it differs from what a success means, ``hint`` what to do after a
    failure, and ``evidence`` are lines that explain one (a service's last journal lines).
    """

    state: Mapping[str, Any] | None = None
    contradiction: str = ""
    hint: str = ""
    evidence: tuple[str, ...] = ()


# Re-reads what was acted on; the flag says whether the run failed, and so wants evidence.
After = Callable[[Any, Facts, bool], Aftermath]

# A plan yields steps, and notes for people; behind a Look it receives that step's outcome.
Planned = Generator[Step | Note | Look | Undo, Outcome | None, None]
Plan = Callable[[P, Facts], Planned]
Read = Callable[[Q, Facts], R]


class Stop(Protocol):
    """How what never ends by itself waits, and learns that it is over."""

    def wait(self, seconds: float) -> bool:
        """Wait; True as soon as nobody listens any more."""
        ...

    def readable(self, descriptor: int, seconds: float) -> bool:
        """Wait until a descriptor may have something to read; True once nobody listens."""
        ...


Tell = Callable[[Q, Facts, Stop], Iterator[R]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action(Generic[P]):
    """One thing that a node can be asked to do.

    ``live`` ones open a terminal: they have no run, and their plan refuses.
    """

    name: str
    title: str
    danger: Danger
    params: type[P]
    plan: Plan[P]
    needs: frozenset[str] = frozenset()
    inverse: str | None = None
    timeout_seconds: float = JOB_SECONDS
    root_equivalent: bool = False
    after: After | None = None
    settle_seconds: float = 0.0
    live: bool = False

    @property
    def family(self) -> str:
        """The part of the name before the dot."""
        return self.name.partition(".")[0]

    @property
    def is_job(self) -> bool:
        """Tell whether it runs in a process of its own, and so outlives the actor."""
        return self.timeout_seconds > JOB_SECONDS

    @property
    def permission(self) -> str:
        """The permission that a user must hold."""
        return f"action:{self.name}"

    @property
    def summary(self) -> str:
        """The first line of the plan's docstring."""
        return _first_line(self.plan)

    @property
    def description(self) -> str:
        """The rest of the plan's docstring: what a user should know before running it."""
        return (inspect.getdoc(self.plan) or "").partition("\n")[2].strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query(Generic[Q, R]):
    """One thing that a node can be asked about."""

    name: str
    title: str
    params: type[Q]
    result: type[R]
    read: Read[Q, R]
    needs: frozenset[str] = frozenset()
    timeout_seconds: float = 10.0
    own_permission: str = ""
    sensitive: bool = False

    @property
    def permission(self) -> str:
        """The permission that a user must hold; of the roles only the admin has ``inspect``."""
        own = f"inspect:{self.name}" if self.sensitive else f"query:{self.name}"
        return self.own_permission or own

    @property
    def summary(self) -> str:
        """The first line of the reader's docstring."""
        return _first_line(self.read)


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow(Generic[Q, R]):
    """One thing that a node tells of for as long as somebody listens."""

    name: str
    title: str
    params: type[Q]
    result: type[R]
    tell: Tell[Q, R]
    needs: frozenset[str] = frozenset()

    @property
    def permission(self) -> str:
        """The permission that a user must hold: to follow is to ask, again and again."""
        return f"query:{self.name}"

    @property
    def summary(self) -> str:
        """The first line of the generator's docstring."""
        return _first_line(self.tell)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that this release can be asked, by exact name: names are data, never attributes."""

    actions: Mapping[str, Action[Any]] = field(default_factory=dict)
    queries: Mapping[str, Query[Any, Any]] = field(default_factory=dict)
    follows: Mapping[str, Follow[Any, Any]] = field(default_factory=dict)


def action(
    *,
    name: str,
    title: str,
    danger: Danger,
    needs: set[str] | None = None,
    inverse: str | None = None,
    timeout_seconds: float = JOB_SECONDS,
    root_equivalent: bool = False,
    after: After | None = None,
    settle_seconds: float = 0.0,
    live: bool = False,
) -> Callable[[Plan[P]], Action[P]]:
    """Turn a plan function into an Action; its docstring and first annotation are used.

    ``after`` re-reads what was acted on, ``settle_seconds`` after the last step: what dies at
    once does so after whoever started it has said that all went well.
    """

    def declare(plan: Plan[P]) -> Action[P]:
        return Action(
            name=_checked(name, plan),
            title=title,
            danger=danger,
            params=_first_annotation(plan),
            plan=plan,
            needs=frozenset(needs or ()),
            inverse=inverse,
            timeout_seconds=timeout_seconds,
            root_equivalent=root_equivalent,
            after=after,
            settle_seconds=settle_seconds,
            live=live,
        )

    return declare


def query(
    *,
    name: str,
    title: str,
    needs: set[str] | None = None,
    timeout_seconds: float = 10.0,
    permission: str = "",
    sensitive: bool = False,
) -> Callable[[Read[Q, R]], Query[Q, R]]:
    """Turn a reading function into a Query; its docstring and annotations are used.

    ``permission`` is another than ``query:<name>``, for what not everybody who looks may see.
    ``sensitive`` queries tell what may hold secrets, and need ``inspect:<name>``.
    """

    def declare(read: Read[Q, R]) -> Query[Q, R]:
        return Query(
            name=_checked(name, read),
            title=title,
            params=_first_annotation(read),
            result=inspect.signature(read, eval_str=True).return_annotation,
            read=read,
            needs=frozenset(needs or ()),
            timeout_seconds=timeout_seconds,
            own_permission=permission,
            sensitive=sensitive,
        )

    return declare


def follow(
    *, name: str, title: str, needs: set[str] | None = None
) -> Callable[[Tell[Q, R]], Follow[Q, R]]:
    """Turn a generator function into a Follow; its docstring and annotations are used.

    It yields results until its third argument says that nobody listens, and lets go of what it
    holds when it is closed.
    """

    def declare(tell: Tell[Q, R]) -> Follow[Q, R]:
        told = get_args(inspect.signature(tell, eval_str=True).return_annotation)
        if not told:
            raise TypeError(f"{name} must be annotated to return an iterator of its results")
        return Follow(
            name=_checked(name, tell),
            title=title,
            params=_first_annotation(tell),
            result=told[0],
            tell=tell,
            needs=frozenset(needs or ()),
        )

    return declare


def _checked(name: str, function: Callable[..., Any]) -> str:
    if not NAME.match(name):
        raise TypeError(f"{name!r} is not a name of the form family.verb")
    if not inspect.getdoc(function):
        raise TypeError(f"{name} needs a docstring: it is its documentation")
    return name


def _first_annotation(function: Callable[..., Any]) -> Any:
    return next(iter(inspect.signature(function, eval_str=True).parameters.values())).annotation


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]
