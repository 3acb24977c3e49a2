"""Judge by the node's own policy file, which has the last word on what may be done here."""

import enum
import ipaddress
import os
import re
import stat
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)
from typing_extensions import override

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.firewallfacts import FirewallSettings
from narthex_exporter.contract.spec import Action, Danger, Params, Target
from narthex_exporter.contract.tickets import LEEWAY_SECONDS, Claims
from narthex_exporter.errors import ConfigError

_FILE_BYTES: Final = 64 * 1024
_PERIOD_SECONDS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0}
_RATE: Final = re.compile(r"([1-9][0-9]{0,5})/(s|min|h)")
_ASK: Final = "the node's owner changes that in its policy file"
# An approval is good for so long, by the node's clock.
APPROVAL_SECONDS: Final = 15 * 60.0
_MOST_APPROVALS: Final = 5
FAMILIES: Final = frozenset(action.family for action in CATALOGUE.values())


class PolicyError(RefusedError):
    """The node's policy forbids something."""


class Mode(enum.StrEnum):
    """How much the actor does at all, least to most."""

    OFF = "off"
    READ_ONLY = "read-only"
    MANAGE = "manage"


def _known_family(name: str) -> str:
    if name not in FAMILIES:
        raise ValueError(f"there is no family {name!r}; there are {', '.join(sorted(FAMILIES))}")
    return name


def _known_action(name: str) -> str:
    if name not in CATALOGUE:
        raise ValueError(f"there is no action {name!r}")
    return name


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is no address or network: {error}") from error


def _text(value: Any) -> Any:
    """Take a bare port as the text that it is meant to be."""
    return str(value) if type(value) is int else value


PortPattern = Annotated[str, BeforeValidator(_text)]


class Rate(BaseModel):
    """At most ``count`` runs in any ``seconds``; written ``10/min``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int
    seconds: float

    @staticmethod
    def parse(value: Any) -> Any:
        """Read ``N/s``, ``N/min`` or ``N/h``."""
        match = _RATE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError("a rate is written like 10/min: a number, then s, min or h")
        return {"count": int(match[1]), "seconds": _PERIOD_SECONDS[match[2]]}

    @override
    def __str__(self) -> str:
        """Write the rate as the file does."""
        unit = next(name for name, one in _PERIOD_SECONDS.items() if one == self.seconds)
        return f"{self.count}/{unit}"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class ServicePolicy(_Section):
    """Which units may be acted on: those that ``allow`` names and ``deny`` does not."""

    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None


class ProcessPolicy(_Section):
    """Which processes may not be acted on."""

    protect_users: tuple[str, ...] = ()
    protect_comm: tuple[str, ...] = ()


class ContainerPolicy(_Section):
    """Which containers, volumes, networks and projects may be acted on, by name.

    ``registries`` are where images may come from: prefixes that end with a slash, or patterns.
    Without them an image may come from anywhere.
    """

    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None
    registries: tuple[str, ...] | None = None

    @property
    def images(self) -> tuple[str, ...] | None:
        """The patterns of images that may be used."""
        if self.registries is None:
            return None
        return tuple(f"{one}*" if one.endswith("/") else one for one in self.registries)


class SupervisorPolicy(_Section):
    """Which programs of supervisord may be acted on."""

    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None


class AlwaysAllow(_Section):
    """A source that every firewall of ours lets in, to one TCP port or to all."""

    source: Annotated[str, Field(alias="from"), AfterValidator(_network)]
    port: Annotated[int, Field(ge=1, le=65535, strict=True)] | None = None


class FirewallPolicy(_Section):
    """Which ports may be acted on, and who is never shut out.

    Ports are written ``22/tcp`` or ``22``, as shell patterns; ``any`` stands for what concerns all
    of them (a default policy, a source as a whole).
    """

    always_allow: tuple[AlwaysAllow, ...] = ()
    deny_ports: tuple[PortPattern, ...] = ()
    allow_ports: tuple[PortPattern, ...] | None = None
    rollback_seconds: Annotated[int, Field(ge=10, le=600, strict=True)] = 60

    def settings(self) -> FirewallSettings:
        """Give what plans may know of it."""
        return FirewallSettings(
            always_allow=tuple((one.source, one.port or 0) for one in self.always_allow),
            rollback_seconds=float(self.rollback_seconds),
        )


class _Lists(NamedTuple):
    """The names that a policy denies and allows of one kind, and the word for the first."""

    denied: str
    deny: tuple[str, ...]
    allow: tuple[str, ...] | None
    word: str = "allow"

    @property
    def allowed(self) -> str:
        section, _, name = self.denied.partition(".")
        return f"{section}.{name.replace('deny', 'allow') if 'deny' in name else self.word}"


class Policy(_Section):
    """What may be done on this node. ``policy.example.yaml`` explains each word."""

    version: Literal[1]
    mode: Mode
    danger: dict[Annotated[str, AfterValidator(_known_family)], Danger | Literal["off"]] = {}
    root_equivalent: tuple[Annotated[str, AfterValidator(_known_action)], ...] = ()
    service: ServicePolicy = ServicePolicy()
    process: ProcessPolicy = ProcessPolicy()
    container: ContainerPolicy = ContainerPolicy()
    supervisor: SupervisorPolicy = SupervisorPolicy()
    firewall: FirewallPolicy = FirewallPolicy()
    rate: dict[Danger, Annotated[Rate, BeforeValidator(Rate.parse)]] = {}
    require_approvals: dict[Danger, Annotated[int, Field(ge=1, le=_MOST_APPROVALS)]] = {}

    @field_validator("version", mode="before")
    @classmethod
    def _only_the_number(cls, value: Any) -> Any:
        if type(value) is not int:
            raise ValueError("the version is the number 1")
        return value

    def judge_query(self) -> None:
        """Refuse a query where the actor is off. Raises PolicyError."""
        if self.mode is Mode.OFF:
            raise PolicyError(
                "the node's policy has turned its actor off",
                hint="its owner sets `mode` in the policy file",
            )

    def judge_action(self, action: Action[Any]) -> None:
        """Refuse an action that may not be run whatever it acts on. Raises PolicyError."""
        self.judge_query()
        if self.mode is not Mode.MANAGE:
            raise PolicyError(
                "the node's policy is read-only: it allows no action",
                hint="its owner sets `mode: manage` in the policy file",
            )
        ceiling = self.danger.get(action.family, "off")
        if ceiling == "off" or action.danger.rank > Danger(ceiling).rank:
            allowed = "none" if ceiling == "off" else f"up to {ceiling}"
            raise PolicyError(
                f"the node's policy allows {allowed} of the {action.family} actions;"
                f" {action.name} is {action.danger}",
                hint=f"its owner sets `danger: {action.family}` in the policy file",
            )
        if action.root_equivalent and action.name not in self.root_equivalent:
            raise PolicyError(
                f"{action.name} equals root access, and the node's policy does not name it",
                hint="its owner lists it under `root_equivalent` in the policy file",
            )

    def judge(self, action: Action[Any], params: Params, facts: Facts) -> None:
        """Refuse an action on what its parameters mean here and now. Raises PolicyError."""
        self.judge_action(action)
        for target in params.targets(facts):
            self.judge_target(target)

    def judge_target(self, target: Target) -> None:
        """Refuse to touch one thing. Raises PolicyError."""
        lists = self._lists().get(target.kind)
        if lists is None:
            return
        because = f": {target.why}" if target.why else ""
        for name in target.names:
            pattern = _first_match(name, lists.deny)
            if pattern is not None:
                raise PolicyError(
                    f"the node's policy protects the {target.kind} {name}{because}"
                    f" ({lists.denied}: {pattern})",
                    hint=_ASK,
                )
        allow = lists.allow
        if (
            target.by_the_way
            or allow is None
            or any(_first_match(name, allow) for name in target.names)
        ):
            return
        raise PolicyError(
            f"the node's policy does not name the {target.kind} {target.names[0]}{because}"
            f" ({lists.allowed})",
            hint=_ASK,
        )

    def judge_approvals(self, action: Action[Any], claims: Claims, *, now: float) -> None:
        """Refuse a run that too few people approved, whoever asks not counted."""
        wanted = self.require_approvals.get(action.danger, 0)
        people = {
            one.user
            for one in claims.apr
            if one.user != claims.sub and -LEEWAY_SECONDS <= now - one.at <= APPROVAL_SECONDS
        }
        if len(people) < wanted:
            raise PolicyError(
                f"the node's policy wants {wanted} other people to approve what is"
                f" {action.danger}; {len(people)} did in time",
                hint="ask someone who may run it to approve it in the panel",
            )

    def _lists(self) -> dict[str, "_Lists"]:
        containers = _Lists("container.deny", self.container.deny, self.container.allow)
        return {
            **dict.fromkeys(("container", "volume", "network", "project"), containers),
            "image": _Lists("container", (), self.container.images, "registries"),
            "unit": _Lists("service.deny", self.service.deny, self.service.allow),
            "user": _Lists("process.protect_users", self.process.protect_users, None),
            "process": _Lists("process.protect_comm", self.process.protect_comm, None),
            "program": _Lists("supervisor.deny", self.supervisor.deny, self.supervisor.allow),
            "port": _Lists(
                "firewall.deny_ports", self.firewall.deny_ports, self.firewall.allow_ports
            ),
        }

    def summary(self) -> dict[str, Any]:
        """Give what the manifest tells of the policy."""
        ceilings = {family: str(self.danger.get(family, "off")) for family in sorted(FAMILIES)}
        # Every section, those to come included; what is written as a word stays one.
        told = self.model_dump(mode="json", exclude={"version"})
        told["rate"] = {str(danger): str(rate) for danger, rate in self.rate.items()}
        return {**told, "danger": ceilings}

    def allowed(self) -> dict[str, bool]:
        """Tell of each action whether it may be run here on something."""
        return {name: self._allows(one) for name, one in sorted(CATALOGUE.items())}

    def explain(self) -> list[str]:
        """Say in words what the policy allows, one sentence a line."""
        if self.mode is Mode.OFF:
            return ["The actor is off: it answers no query and runs no action."]
        if self.mode is Mode.READ_ONLY:
            return ["The actor answers queries. It runs no action."]
        lines = ["The actor answers queries, and runs these actions:"]
        for family in sorted(FAMILIES):
            mine = [one for one in CATALOGUE.values() if one.family == family]
            allowed = sorted(one.name for one in mine if self._allows(one))
            refused = sorted({one.name for one in mine} - set(allowed))
            lines.append(f"  {family}: {', '.join(allowed) or 'none'}")
            if refused:
                lines.append(f"    refused: {', '.join(refused)}")
        named = [name for name in self.root_equivalent if self._allows(CATALOGUE[name])]
        lines.append(f"Of these, equal to root access: {_words(tuple(named))}.")
        lines += self._explain_objects()
        lines += [f"At most {rate} runs that are {danger}." for danger, rate in self.rate.items()]
        lines += [
            f"What is {danger} needs the approval of {_people(count)}."
            for danger, count in self.require_approvals.items()
        ]
        return lines

    def _allows(self, action: Action[Any]) -> bool:
        try:
            self.judge_action(action)
        except PolicyError:
            return False
        return True

    def _explain_objects(self) -> list[str]:
        lines = []
        if self.service.allow is None:
            lines.append("It may act on every unit but Narthex's own and those denied below.")
        else:
            lines.append(f"It may act on these units only: {_words(self.service.allow)}.")
        lines.append(f"Units denied, their processes too: {_words(self.service.deny)}.")
        lines.append(f"Processes protected by user: {_words(self.process.protect_users)}.")
        lines.append(f"Processes protected by name: {_words(self.process.protect_comm)}.")
        if self.container.allow is not None:
            names = _words(self.container.allow)
            lines.append(f"Containers, volumes, networks and projects, these only: {names}.")
        lines.append(
            f"Containers, volumes, networks and projects denied: {_words(self.container.deny)}."
        )
        registries = self.container.registries
        where = "any registry" if registries is None else _words(registries)
        lines.append(f"Images may come from: {where}.")
        if self.supervisor.allow is not None:
            lines.append(f"Programs of supervisord allowed: {_words(self.supervisor.allow)}.")
        lines.append(f"Programs of supervisord denied: {_words(self.supervisor.deny)}.")
        return lines + self._explain_firewall()

    def _explain_firewall(self) -> list[str]:
        firewall = self.firewall
        named = firewall.allow_ports
        always = tuple(
            f"{one.source} ({f'port {one.port}' if one.port else 'every port'})"
            for one in firewall.always_allow
        )
        return [
            "Its firewall actions may concern every port but those denied below."
            if named is None
            else f"Its firewall actions may concern these ports only: {_words(named)}.",
            f"Ports denied to firewall actions: {_words(firewall.deny_ports)}.",
            f"Sources that its firewall always lets in: {_words(always)}.",
            f"Unconfirmed firewall changes are brought back after {firewall.rollback_seconds} s.",
        ]


OFF: Final = Policy(version=1, mode=Mode.OFF)


def load_policy(path: Path) -> Policy:
    """Read a policy file that only its owner can have written. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            check_owner(path, os.fstat(file.fileno()))
            check_owner(path.resolve().parent, path.resolve().parent.stat())
            raw = file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read the policy {path}: {error.strerror}",
            hint="without a policy the actor does not start; policy.example.yaml shows one",
        ) from error
    if len(raw) > _FILE_BYTES:
        raise ConfigError(f"the policy {path} is longer than {_FILE_BYTES} bytes")
    return parse_policy(raw, name=str(path))


def parse_policy(raw: bytes, *, name: str) -> Policy:
    """Read a policy's text. Raises ConfigError, which names each wrong key."""
    try:
        loader = _Loader(raw)
        try:
            document = loader.get_single_data()
        finally:
            loader.dispose()
        return Policy.model_validate(document)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, one['loc'])) or 'the document'}: {one['msg']}"
            for one in error.errors()
        ]
        raise ConfigError(
            f"the policy {name} is wrong: {'; '.join(wrong)}",
            hint=f"correct it, then run: narthex actor check-policy {name}",
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"the policy {name} is not YAML: {error}") from error


def check_owner(path: Path, status: os.stat_result) -> None:
    """Refuse what somebody else than root, or we, could have written. Raises ConfigError."""
    if status.st_uid not in {0, os.geteuid()}:
        raise ConfigError(
            f"{path} belongs to user {status.st_uid}, not to root", hint=f"run: chown root {path}"
        )
    check_mode(path, status)


def check_mode(path: Path, status: os.stat_result) -> None:
    """Refuse what others than its owner may write. Raises ConfigError."""
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"{path} can be written by others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"run: chmod go-w {path}",
        )


class _Loader(yaml.SafeLoader):
    """YAML without surprises: `off` is a word, keys are unique, nothing is aliased."""

    @override
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read here")
        return super().compose_node(parent, index)

    @override
    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key) for key, _ in node.value]
        doubled = {str(key) for key in keys if keys.count(key) > 1}
        if doubled:
            raise yaml.YAMLError(f"the key {', '.join(sorted(doubled))} stands there twice")
        return super().construct_mapping(node, deep)


# Only true and false are booleans, as in YAML 1.2: `mode: off` means the word.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _first_match(name: str, patterns: tuple[str, ...]) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def _people(count: int) -> str:
    return "one other person" if count == 1 else f"{count} other people"


def _words(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
