"""Freeze the declarations: a lowered danger level is a red test and one line in a diff.

``REGENERATE=1`` writes the golden file anew: read its diff.
"""

import json
import os
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from narthex_exporter import actions, queries
from narthex_exporter.contract.spec import Danger
from narthex_exporter.contract.wire import describe_action, describe_query

GOLDEN = Path(__file__).parents[2] / "golden" / "catalogue.json"
HELPERS = {
    "containerparams", "firewallchange", "firewallguard", "firewallparams", "firewalltable",
    "firewallufw", "masking", "notices", "programs", "reference",
}  # fmt: skip


def declared() -> dict[str, Any]:
    return {
        "actions": {
            name: describe_action(action).model_dump(mode="json") | {"needs": sorted(action.needs)}
            for name, action in sorted(actions.CATALOGUE.items())
        },
        "queries": {
            name: describe_query(query).model_dump(mode="json")
            | {"needs": sorted(query.needs), "result": query.result.model_json_schema()}
            for name, query in sorted(queries.CATALOGUE.items())
        },
    }


def test_the_catalogue_is_the_golden_one() -> None:
    if os.environ.get("REGENERATE") == "1":
        GOLDEN.write_text(json.dumps(declared(), indent=2) + "\n")
    assert declared() == json.loads(GOLDEN.read_text()), "REGENERATE=1, and read the diff"


@pytest.mark.parametrize("package", [actions, queries])
def test_every_module_is_listed(package: Any) -> None:
    modules: tuple[ModuleType, ...] = package.MODULES
    found = {module.name for module in pkgutil.iter_modules(package.__path__)}
    listed = {module.__name__.rpartition(".")[2] for module in modules}
    assert found - HELPERS == listed


def test_an_inverse_is_declared_and_undoes_back() -> None:
    for name, action in actions.CATALOGUE.items():
        if action.inverse is not None:
            assert actions.CATALOGUE[action.inverse].inverse == name


def test_what_is_reversible_can_be_undone() -> None:
    # Their plans tell how, with what was there before.
    without = {
        name
        for name, action in actions.CATALOGUE.items()
        if action.danger is Danger.REVERSIBLE and action.inverse is None
    }
    assert without == {
        "process.renice", "service.set-property", "container.create", "container.rename",
        "container.run", "container.update", "container-network.create", "compose.edit",
        "image.pull", "image.tag", "volume.create",
    }  # fmt: skip


@pytest.mark.parametrize("name", actions.CATALOGUE)
def test_every_parameter_has_a_title_for_its_form(name: str) -> None:
    schema = actions.CATALOGUE[name].params.model_json_schema()
    fields = schema["properties"].values()
    assert all("title" in field for field in fields)
    assert schema["additionalProperties"] is False
