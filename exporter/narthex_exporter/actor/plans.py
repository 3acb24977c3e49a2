"""Work out what an action would do, without doing it."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Action, Params
from narthex_exporter.contract.steps import Look, Note, Outcome, Step, as_json
from narthex_exporter.contract.wire import PlannedStep, PlanReply, plan_digest

Yielded = Generator[Step | Note | Look, Outcome | None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of an action as far as they are known; ``complete`` tells if those are all."""

    action: Action[Any]
    resource: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    complete: bool

    @property
    def exact(self) -> list[dict[str, Any]]:
        """The steps as they are hashed and compared."""
        return [as_json(step) for step in self.steps]

    @property
    def digest(self) -> str:
        """The hash that a run's request must name."""
        return plan_digest(self.action.name, self.resource, self.exact)

    def reply(self) -> PlanReply:
        """Tell the plan to the operator."""
        return PlanReply(
            action=self.action.name,
            resource=self.resource,
            danger=self.action.danger,
            steps=tuple(
                PlannedStep(text=step.describe(), exact=exact)
                for step, exact in zip(self.steps, self.exact, strict=True)
            ),
            notes=self.notes,
            digest=self.digest,
            complete=self.complete,
        )


def make_plan(action: Action[Any], params: Params, facts: Facts) -> Plan:
    """Follow a plan to its end, or to the first step whose outcome it must see.

    Raises RefusedError where the plan refuses.
    """
    steps: list[Step] = []
    notes: list[str] = []
    complete = True
    generator: Yielded = action.plan(params, facts)
    try:
        for item in generator:
            match item:
                case Note(text=text):
                    notes.append(text)
                case Look(step=step):
                    steps.append(step)
                    notes.append("what follows depends on how the last step turns out")
                    complete = False
                    break
                case step:
                    steps.append(step)
    finally:
        generator.close()
    return Plan(
        action=action,
        resource=params.resource,
        steps=tuple(steps),
        notes=tuple(notes),
        complete=complete,
    )
