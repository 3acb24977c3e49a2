"""SECURITY.md 55: whatever stands in a parameter stays one argument, and never becomes an option.

Written over the catalogue: what joins it is covered by its own cases.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.exporter.actions.conftest import (
    PretendedAccounts,
    PretendedFacts,
    PretendedUnits,
    pretended,
)
from typing_extensions import override

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.actor.plans import Plan, make_plan
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import AccountFact, CalendarFact, UnitFact
from narthex_exporter.contract.steps import (
    DBusCall,
    EngineCall,
    Guard,
    RunProgram,
    Step,
    WriteFile,
)

CASES = Path(__file__).parent / "cases"
MARK = "qzq"
SHELLS = {"ash", "bash", "csh", "dash", "env", "fish", "ksh", "perl", "python3", "sh", "zsh"}


def injections() -> Iterator[str]:
    """Give two hundred strings, each with a word in it by which it is found again."""
    options = (
        "-", "--", "-H", "-o", "--help", "--root=", "--machine=", "--user", "--force",
        "-oProxyCommand=", "--property=ExecStart=", "--output=", "--file=", "--exec=",
    )  # fmt: skip
    for option in options:
        yield f"{option}{MARK}"
        yield f"{option} {MARK}"
    meta = (";", "|", "||", "&", "&&", "\n", "\r\n", "`", "$(", "${", ">", ">>", "<", "<<", "*",
            "?", "~", "!", "#", "\\", "'", '"', "\x00", "\t", "\x1b[2J", "%h", "%s", "%n", "{{",
            "\u202e", "\u2028", "\x85")  # fmt: skip
    for one in meta:
        yield f"{one}{MARK}"
        yield f"{MARK}{one}"
        yield f"{MARK}{one} id"
        yield f"a{one}{MARK}.service"
    paths = ("../", "../../etc/", "/", "/etc/", "./", "//", "/proc/self/root/", "C:\\")
    for path in paths:
        yield f"{path}{MARK}"
        yield f"{path}{MARK}.service"
        yield f"{MARK}/{path}x"
    settings = ("\nExecStart=/bin/", "\n[Service]\nUser=root\n#", "\nUser=", "=/bin/", "\\\n")
    for setting in settings:
        yield f"x{setting}{MARK}"
    yield f"$(touch {MARK})"
    yield f"`touch {MARK}`"
    yield f"{MARK}; reboot"
    yield f"{MARK} --no-block"
    yield f"{MARK}@{MARK}.service"
    yield f"{MARK}.service {MARK}.service"
    yield f"{MARK},{MARK}"
    yield f"{MARK}=1"
    yield f"{MARK}:{MARK}"
    yield f"{MARK}:--{MARK}"
    yield f"{MARK}[0]"
    yield f"{MARK}%"
    yield f" {MARK}"
    yield f"{MARK} "
    yield f"-{MARK}:{MARK}"
    yield f"@{MARK}"
    yield f"+{MARK}"
    yield f"!{MARK}"
    yield MARK * 400
    yield MARK.upper()


INJECTIONS = tuple(injections())


@dataclass(frozen=True)
class Place:
    """One string of one action's parameters: a field, or an element of a list in it."""

    action: str
    field: str
    index: int | None
    params: dict[str, Any]
    facts: dict[str, Any]

    def filled(self, text: str) -> dict[str, Any]:
        """Give the parameters with the text in this place."""
        if self.index is None:
            return {**self.params, self.field: text}
        items = list(self.params.get(self.field, [""]))
        items[self.index] = text
        return {**self.params, self.field: items}


def free_text(schema: dict[str, Any]) -> bool:
    """Tell whether a field takes a string of a person's choice, or a list of them."""
    if schema.get("type") == "array":
        return free_text(schema.get("items", {}))
    return schema.get("type") == "string" and "enum" not in schema


def places() -> Iterator[Place]:
    """Find every place in the cases that do something."""
    seen: set[tuple[str, str, bool]] = set()
    for name in CATALOGUE:
        for case in json.loads((CASES / f"{name}.json").read_text()):
            if not case.get("steps"):
                continue
            fields = CATALOGUE[name].params.model_json_schema()["properties"]
            # Those that a case leaves out are filled in as well.
            left_out = {
                field: [""] if schema.get("type") == "array" else ""
                for field, schema in fields.items()
                if free_text(schema)
            }
            for field, value in {**left_out, **case["params"]}.items():
                for place in _places(name, field, value, case):
                    first = place.index in {None, 0}
                    if (name, field, first) not in seen:
                        seen.add((name, field, first))
                        yield place


def _places(name: str, field: str, value: Any, case: dict[str, Any]) -> Iterator[Place]:
    if isinstance(value, str):
        yield Place(name, field, None, case["params"], case["facts"])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, str):
                yield Place(name, field, index, case["params"], case["facts"])


PLACES = tuple(places())


class AnyUnits(PretendedUnits):
    """Units that are there, whatever they are called: else a refusal would hide the steps."""

    @override
    def get(self, name: str) -> UnitFact | None:
        found = super().get(name)
        if found is not None or not self.found:
            return found
        return replace(next(iter(self.found.values())), name=name)

    @override
    def of(self, user: str) -> PretendedUnits:
        for one in self.of_users.values():
            return AnyUnits(one.found, one.why, one.logged, detailed=one.detailed)
        return self

    @override
    def calendar(self, expression: str, *, times: int) -> CalendarFact:
        return CalendarFact(normalized=expression, elapses=("tomorrow",))


class AnyAccounts(PretendedAccounts):
    @override
    def get(self, name: str) -> AccountFact | None:
        return AccountFact(name=name, uid=1000, gid=1000)


def facts_of(place: Place) -> PretendedFacts:
    facts = pretended(place.facts)
    units = facts.units
    facts.units = AnyUnits(
        units.found, units.why, units.logged, units.of_users, detailed=units.detailed
    )
    facts.accounts = AnyAccounts()
    return facts


def planned(place: Place, text: str) -> Plan | None:
    """Plan with the text in its place; None where it is invalid or refused."""
    action = CATALOGUE[place.action]
    try:
        params = action.params.model_validate(place.filled(text))
        return make_plan(action, params, facts_of(place))
    except (ValidationError, RefusedError):
        return None


def harmless(place: Place) -> Plan:
    """Plan with a text in its place that can do no harm: that is what others are compared with."""
    action = CATALOGUE[place.action]
    schema = action.params.model_json_schema()["properties"][place.field]
    for text in (*schema.get("examples", ()), "plain", "A=plain", "/plain", "plain.service"):
        plan = planned(place, text)
        if plan is not None and plan.steps:
            return plan
    return make_plan(action, action.params.model_validate(place.params), facts_of(place))


def words_of(argv: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a command into what is read for options, and what stands behind the ``--``."""
    if "--" not in argv:
        return argv, ()
    place = argv.index("--")
    return argv[:place], argv[place + 1 :]


def problems(step: Step, plain: Step | None, text: str) -> Iterator[str]:
    """Say where a text has become more than one argument. ``plain`` is the same step without."""
    match step:
        case RunProgram():
            yield from in_program(step, plain, text)
        case WriteFile():
            yield from in_file(step, plain, text)
        case DBusCall():
            if not re.fullmatch(r"systemd(?::[A-Za-z_][A-Za-z0-9._-]*)?", step.service):
                yield f"the service {step.service!r} is chosen by it"
            if plain is not None and len(step.args) != len(getattr(plain, "args", step.args)):
                yield "it has become several arguments"
        case EngineCall():
            if MARK in step.operation.casefold() or MARK in step.engine.casefold():
                yield "it chooses what an engine is asked"
        case Guard():
            for one in step.revert:
                yield from problems(one, None, text)
        case _:
            pass


def in_program(step: RunProgram, plain: Step | None, text: str) -> Iterator[str]:
    before, _ = words_of(step.argv)
    if Path(step.argv[0]).name in SHELLS or "/" in step.argv[0]:
        yield f"{step.argv[0]} is run"
    if isinstance(plain, RunProgram) and len(plain.argv) != len(step.argv):
        yield f"{len(plain.argv)} arguments have become {len(step.argv)}"
    for word in before:
        if MARK in word.casefold() and word.startswith("-") and not _is_value(word, text):
            yield f"{word!r} is read as an option"


def _is_value(word: str, text: str) -> bool:
    """Tell whether a word is an option of ours with the text as its value."""
    option = word.partition("=")[0]
    return "=" in word and MARK not in option.casefold() and not text.startswith(f"{option}=")


def in_file(step: WriteFile, plain: Step | None, text: str) -> Iterator[str]:
    if not re.fullmatch(r"/(?:[^/\0]+/)*[^/\0]+", step.path) or "/../" in step.path:
        yield f"{step.path!r} is written"
    if isinstance(plain, WriteFile):
        # Where a text is a whole file, it may have as many lines as it likes.
        whole = step.content.rstrip("\n") == text.rstrip("\n")
        if not whole and plain.content.count("\n") != step.content.count("\n"):
            yield f"it has made lines of its own in {step.path}"
    if "\0" in step.content:
        yield f"there is a NUL in {step.path}"


def test_there_are_two_hundred_strings_and_a_place_for_each_string_parameter() -> None:
    assert len(set(INJECTIONS)) >= 200
    reached = {(place.action, place.field) for place in PLACES}
    missed = {
        (name, field)
        for name, action in CATALOGUE.items()
        if not action.live  # It has no steps.
        for field, schema in action.params.model_json_schema()["properties"].items()
        if free_text(schema) and (name, field) not in reached
    }
    assert not missed


@pytest.mark.parametrize("place", PLACES, ids=lambda one: f"{one.action}-{one.field}-{one.index}")
def test_a_hostile_parameter_stays_one_argument(place: Place) -> None:
    plain = harmless(place)
    for text in INJECTIONS:
        plan = planned(place, text)
        if plan is None:
            continue
        for index, step in enumerate(plan.steps):
            other = plain.steps[index] if index < len(plain.steps) else None
            same = other if type(other) is type(step) else None
            assert not list(problems(step, same, text)), (text, step)


def test_a_plan_that_lets_a_text_through_is_found_out() -> None:
    text = f"--{MARK}"
    wrong: list[tuple[Step, Step | None]] = [
        (RunProgram(argv=("systemctl", "stop", text)), None),
        (RunProgram(argv=("sh", "-c", f"stop {text}")), None),
        (RunProgram(argv=("a", "--", "x", text)), RunProgram(argv=("a", "--", "x"))),
        (WriteFile(path=f"/etc/../{text}", content=""), None),
        (WriteFile(path="/a", content=f"x\n{text}\n"), WriteFile(path="/a", content="x\n")),
        (DBusCall(service=f"x{text}", method="Reload"), None),
        (EngineCall(engine="docker", operation=text), None),
        (Guard(revert=(RunProgram(argv=("rm", text)),)), None),
    ]
    assert all(list(problems(step, plain, text)) for step, plain in wrong)
