"""Work out what an action would do, without doing it."""

import difflib
from dataclasses import dataclass
from typing import Any, Final

from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Action, Params, Planned
from narthex_exporter.contract.steps import (
    Confirm,
    Guard,
    Look,
    Note,
    RemoveFile,
    Step,
    Undo,
    WriteFile,
    as_json,
)
from narthex_exporter.contract.wire import Offer, PlannedStep, PlanReply, UndoHint, plan_digest

_DIFF_CHARACTERS: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of an action as far as they are known; ``complete`` tells if those are all."""

    action: Action[Any]
    resource: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    complete: bool
    undo: UndoHint | None = None
    offers: tuple[Offer, ...] = ()

    @property
    def guard(self) -> Guard | None:
        """What brings everything back unless it is confirmed."""
        return next((step for step in self.steps if isinstance(step, Guard)), None)

    @property
    def diff(self) -> str:
        """How the files that are written will change, as a unified diff."""
        parts = [_diff(one) for one in self.steps if isinstance(one, WriteFile | RemoveFile)]
        return "".join(parts)[:_DIFF_CHARACTERS]

    @property
    def exact(self) -> list[dict[str, Any]]:
        """The steps as they are hashed and compared."""
        return [as_json(step) for step in self.steps]

    @property
    def digest(self) -> str:
        """The hash that a run's request must name."""
        return plan_digest(self.action.name, self.resource, self.exact)

    def reply(self, *, approvals: int = 0) -> PlanReply:
        """Tell the plan to the operator, and how many people must approve it."""
        return PlanReply(
            action=self.action.name,
            resource=self.resource,
            danger=self.action.danger,
            steps=tuple(
                PlannedStep(text=step.describe(), exact=exact)
                for step, exact in zip(self.steps, self.exact, strict=True)
            ),
            notes=self.notes,
            offers=self.offers,
            diff=self.diff,
            digest=self.digest,
            complete=self.complete,
            approvals=approvals,
            confirm_seconds=self.guard.seconds if self.guard else 0.0,
            undo=self.undo,
        )


def make_plan(action: Action[Any], params: Params, facts: Facts) -> Plan:
    """Follow a plan to its end, or to the first step whose outcome it must see.

    Raises RefusedError where the plan refuses.
    """
    steps: list[Step] = []
    notes: list[Note] = []
    complete = True
    undo = None if action.inverse is None else _same(action.inverse, params)
    generator: Planned = action.plan(params, facts)
    try:
        for item in generator:
            match item:
                case Note():
                    notes.append(item)
                case Undo():
                    undo = UndoHint(action=item.action, params=dict(item.params))
                case Look(step=step):
                    steps.append(step)
                    notes.append(Note(text="what follows depends on how the last step turns out"))
                    complete = False
                    break
                case step:
                    steps.append(step)
    finally:
        generator.close()
    _check_guard(action, steps)
    return Plan(
        action=action,
        resource=params.resource,
        steps=tuple(steps),
        notes=tuple(note.text for note in notes),
        complete=complete,
        undo=undo,
        offers=tuple(
            Offer(text=note.text, action=note.action, params=dict(note.params))
            for note in notes
            if note.action
        ),
    )


def _same(inverse: str, params: Params) -> UndoHint:
    return UndoHint(action=inverse, params=params.model_dump(mode="json"))


def _check_guard(action: Action[Any], steps: list[Step]) -> None:
    """Refuse a plan of ours that could cut a node off for good: a fault, not a refusal."""
    guards = [index for index, step in enumerate(steps) if isinstance(step, Guard)]
    confirms = [index for index, step in enumerate(steps) if isinstance(step, Confirm)]
    if not guards and not confirms:
        return
    if len(guards) != 1 or len(confirms) != 1 or guards[0] > confirms[0] or not action.is_job:
        raise TypeError(f"{action.name} must be a job with one guard, and one confirm behind it")


def _diff(step: WriteFile | RemoveFile) -> str:
    before = step.before or ""
    after = step.content if isinstance(step, WriteFile) else ""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        fromfile=step.path if step.before is not None else "/dev/null",
        tofile=step.path if isinstance(step, WriteFile) else "/dev/null",
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
