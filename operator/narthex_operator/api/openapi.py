"""Write the OpenAPI document from the routes, their models and the catalogue."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import BaseModel, create_model
from pydantic.json_schema import models_json_schema

from narthex_exporter.contract.headers import (
    PROBLEM_TYPE,
)
from narthex_exporter.contract.spec import Catalogue
from narthex_exporter.contract.wire import (
    Problem,
)
from narthex_operator.api.routing import JSON, PREFIX, Nothing, Route
from narthex_operator.services.access import PUBLIC

_REF: Final = "#/components/schemas/{model}"
_VARIABLE: Final = re.compile(r"<(?:[a-z]+:)?([a-z_]+)>")
_GENERIC: Final = ("query", "ask", "plan", "submit")


def document(routes: Iterable[Route], catalogue: Catalogue, *, version: str) -> dict[str, Any]:
    """Write the document: one operation a route, and one a query, plan and run."""
    operations = list(_concrete(routes, catalogue))
    models = {model for route in operations for model in _models(route)}
    keys, schemas = models_json_schema(
        sorted(((m, _mode(m)) for m in models | {Problem}), key=lambda one: one[0].__name__),
        ref_template=_REF,
    )
    references = {model: schema for (model, _), schema in keys.items()}
    paths: dict[str, dict[str, Any]] = {}
    for route in operations:
        path = _VARIABLE.sub(r"{\1}", full_rule(route))
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Narthex",
            "version": version,
            "description": "Watch servers and act on them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def full_rule(route: Route) -> str:
    """Give a route's whole path, in Flask's form."""
    absolute = route.rule.startswith(("/api/", "/pki/", "/-/", "/metrics"))
    return route.rule if absolute else PREFIX + route.rule


def _concrete(routes: Iterable[Route], catalogue: Catalogue) -> Iterator[Route]:
    """Name each query and action in a path of its own, with its own parameters."""
    found = {route.name: route for route in routes}
    yield from (route for name, route in found.items() if name not in _GENERIC)
    for name, query in catalogue.queries.items():
        yield replace(
            found["query"],
            name=f"query_{_word(name)}",
            rule=found["query"].rule.replace("<name>", name),
            summary=query.summary,
            body=_with_params(found["query"], name, query.params),
            reply=query.result,
        )
        yield replace(
            found["ask"],
            name=f"ask_{_word(name)}",
            rule=found["ask"].rule.replace("<name>", name),
            summary=f"{query.title}: {found['ask'].summary}",
            body=_with_params(found["ask"], name, query.params),
        )
    for name, action in catalogue.actions.items():
        for kind in ("plan", "submit"):
            yield replace(
                found[kind],
                name=f"{kind}_{_word(name)}",
                rule=found[kind].rule.replace("<name>", name),
                summary=f"{action.title}: {found[kind].summary}",
                body=_with_params(found[kind], name, action.params),
                permission=action.permission,
            )


def _with_params(route: Route, name: str, params: type[BaseModel]) -> type[BaseModel]:
    title = "".join(word.capitalize() for word in re.split(r"[._-]", f"{route.name}.{name}"))
    return create_model(f"{title}Body", __base__=route.body, params=(params, ...))


def _word(name: str) -> str:
    return re.sub(r"[.-]", "_", name)


def _models(route: Route) -> Iterator[type[BaseModel]]:
    yield from (m for m in (route.body, route.reply) if m is not None)


def _mode(model: type[BaseModel]) -> Any:
    forbids = model.model_config.get("extra") == "forbid"
    return "validation" if forbids else "serialization"


def _operation(route: Route, references: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "x-permission": route.permission,
        "responses": {
            str(route.status): _reply(route, references),
            "default": {
                "description": "A problem.",
                "content": {PROBLEM_TYPE: {"schema": references[Problem]}},
            },
        },
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _VARIABLE.findall(route.rule)
    ] + list(_query_parameters(route.query))
    if parameters:
        found["parameters"] = parameters
    if route.body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": references[route.body]}},
        }
    if route.permission == PUBLIC:
        found["security"] = []
    return found


def _reply(route: Route, references: Mapping[Any, Any]) -> dict[str, Any]:
    if route.reply is None:
        return {"description": route.summary}
    return {
        "description": route.summary,
        "content": {JSON: {"schema": references[route.reply]}},
    }


def _query_parameters(model: type[BaseModel]) -> Iterator[dict[str, Any]]:
    if model is Nothing:
        return
    schema = model.model_json_schema()
    for name, field in schema.get("properties", {}).items():
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": field,
        }
