"""Run every case file: cases/<action>.json, one list of cases an action."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.exporter.actions.conftest import pretended

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.actor.plans import make_plan
from narthex_exporter.contract.errors import RefusedError

CASES = Path(__file__).parent / "cases"
FOUND = [
    pytest.param(path.stem, case, id=f"{path.stem}: {case['it']}")
    for path in sorted(CASES.glob("*.json"))
    for case in json.loads(path.read_text())
]


@pytest.mark.parametrize(("name", "case"), FOUND)
def test_an_action_does_what_its_case_says(name: str, case: dict[str, Any]) -> None:
    action = CATALOGUE[name]
    if "invalid" in case:
        with pytest.raises(ValidationError) as invalid:
            action.params.model_validate(case["params"])
        assert [error["loc"][0] for error in invalid.value.errors()] == case["invalid"]
        return
    params, facts = action.params.model_validate(case["params"]), pretended(case["facts"])
    if "refused" in case:
        with pytest.raises(RefusedError) as refused:
            make_plan(action, params, facts)
        assert str(refused.value) == case["refused"]
        return
    plan = make_plan(action, params, facts)
    assert json.loads(json.dumps(plan.exact)) == case["steps"]
    assert list(plan.notes) == case["notes"]
    assert plan.complete is case.get("complete", True)
    if "undo" in case:
        assert plan.undo is not None
        assert plan.undo.model_dump() == case["undo"]
    if "offers" in case:
        assert [[one.action, one.params] for one in plan.offers] == case["offers"]


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_action_has_cases_for_doing_refusing_and_invalid_parameters(name: str) -> None:
    cases = json.loads((CASES / f"{name}.json").read_text())
    kinds = {"refused", "invalid"} | (set() if CATALOGUE[name].live else {"steps"})
    assert all(any(kind in case for case in cases) for kind in kinds)


def test_every_case_file_is_an_action() -> None:
    assert {path.stem for path in CASES.glob("*.json")} == set(CATALOGUE)
