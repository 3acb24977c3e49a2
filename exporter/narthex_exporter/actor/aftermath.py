"""Re-read what a run acted on, so that its result tells what is, not what was asked for."""

from dataclasses import dataclass
from typing import Any, Final

from narthex_exporter.actions.process import ENDING, ProcessParams, SignalName, SignalParams
from narthex_exporter.actions.service import UnitParams
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Params

JOURNAL_LINES: Final = 20
_STARTS: Final = frozenset({"service.start", "service.restart"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """The state after a run.

    ``contradiction`` says how it differs from what a success means, ``hint`` what to do after a
    failure.
    """

    state: dict[str, Any] | None = None
    contradiction: str = ""
    hint: str = ""


def look(action: str, params: Params, facts: Facts) -> Aftermath:
    """Read the state of what an action acted on."""
    if isinstance(params, ProcessParams):
        return _process(params, facts)
    if isinstance(params, UnitParams):
        return _unit(action, params, facts)
    return Aftermath()


def journal(params: Params, facts: Facts) -> tuple[str, ...]:
    """Give the last lines that a unit logged, to explain its failure."""
    if isinstance(params, UnitParams) and not facts.units.unavailable():
        return tuple(facts.units.journal(params.unit, lines=JOURNAL_LINES))
    return ()


def settle_seconds(action: str) -> float:
    """Tell how long to wait first: a service that dies at once does so after systemd's job."""
    return 0.5 if action in _STARTS else 0.0


def _process(params: ProcessParams, facts: Facts) -> Aftermath:
    found = facts.processes.get(params.pid)
    if found is None or found.start_ticks != params.start_ticks or found.state == "Z":
        return Aftermath(state={"exists": False})
    state = {"exists": True, "state": found.state, "nice": found.nice}
    if isinstance(params, SignalParams) and params.signal in ENDING - {SignalName.KILL}:
        return Aftermath(state=state, hint="if it must end now, send KILL: it cannot refuse that")
    return Aftermath(state=state)


def _unit(action: str, params: UnitParams, facts: Facts) -> Aftermath:
    if facts.units.unavailable():
        return Aftermath()
    unit = facts.units.get(params.unit)
    if unit is None:
        return Aftermath(state={"exists": False})
    state = {
        "exists": True,
        "load_state": unit.load_state,
        "active_state": unit.active_state,
        "sub_state": unit.sub_state,
        "unit_file_state": unit.unit_file_state,
        "result": unit.result,
    }
    if action in _STARTS and (
        unit.active_state == "failed" or unit.sub_state in {"auto-restart", "auto-restart-queued"}
    ):
        return Aftermath(
            state=state,
            contradiction=f"{unit.name} was started, and failed ({unit.result or 'no reason'})",
        )
    return Aftermath(state=state)
