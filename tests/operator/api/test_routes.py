"""Every route: who may use it, what it answers to strangers, what it is documented as."""

import json
from pathlib import Path
from typing import Any

import flask
import pytest
from openapi_spec_validator import validate

from narthex_operator import reference
from narthex_operator.app import CATALOGUE
from narthex_operator.pipeline import UndeclaredViewError, check_declared, routes_of
from realoperator import Operator

GOLDEN = Path(__file__).parents[2] / "golden"


def app_of(operator: Operator) -> flask.Flask:
    app = operator.parts.application()
    assert isinstance(app, flask.Flask)
    return app


def document(operator: Operator) -> Any:
    return operator.call("GET", "/api/v1/openapi.json").json()


def test_routes_and_their_permissions_are_as_agreed(operator: Operator) -> None:
    wanted = (GOLDEN / "routes.txt").read_text()
    assert "\n".join(routes_of(app_of(operator))) + "\n" == wanted == reference.routes()


def test_a_route_that_declares_nothing_keeps_the_application_from_starting() -> None:
    app = flask.Flask("bare", static_folder=None)
    app.add_url_rule("/open", view_func=lambda: "for all")
    with pytest.raises(UndeclaredViewError, match="declares no permission"):
        check_declared(app)


def test_no_route_answers_get_and_changes_something(operator: Operator) -> None:
    for line in routes_of(app_of(operator)):
        methods = line.split()[1].split(",")
        assert len(methods) == 1, line


def test_the_document_is_as_agreed(operator: Operator) -> None:
    wanted = (GOLDEN / "openapi.json").read_text()
    assert wanted == reference.openapi()
    assert document(operator) == json.loads(wanted)


def test_the_document_is_openapi(operator: Operator) -> None:
    validate(document(operator))


def test_every_action_and_query_is_documented_with_its_own_parameters(operator: Operator) -> None:
    paths = document(operator)["paths"]
    for name in CATALOGUE.actions:
        for kind in ("plans", "runs"):
            assert "post" in paths[f"/api/v1/nodes/{{node}}/actions/{name}/{kind}"]
    for name in CATALOGUE.queries:
        assert "post" in paths[f"/api/v1/nodes/{{node}}/queries/{name}"]


def test_every_documented_path_exists(operator: Operator) -> None:
    rules = {rule.rule for rule in app_of(operator).url_map.iter_rules()}
    known = {rule.replace("<", "{").replace(">", "}") for rule in rules}
    for path in document(operator)["paths"]:
        generic = path
        # Longer ones first: some names begin like others.
        names = (*CATALOGUE.actions, *CATALOGUE.queries)
        for name in sorted(names, key=len, reverse=True):
            generic = generic.replace(f"/{name}", "/{name}")
        assert generic in known
