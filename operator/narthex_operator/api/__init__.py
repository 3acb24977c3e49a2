"""The HTTP API: declared routes, made into one Flask blueprint and one OpenAPI document."""

from collections.abc import Sequence

from flask import Blueprint

from narthex_exporter.contract.spec import Catalogue
from narthex_operator.api.machines import Machinery
from narthex_operator.api.machines import routes as machine_routes
from narthex_operator.api.openapi import document, full_rule
from narthex_operator.api.routing import Output, Route
from narthex_operator.api.v1 import ROUTES
from narthex_operator.services.access import PUBLIC
from narthex_operator.services.interfaces import Services

__all__ = ["Machinery", "build", "openapi_document"]


class _Document(Output, extra="allow"):
    """The OpenAPI document itself."""


def build(
    services: Services, machinery: Machinery, catalogue: Catalogue, *, version: str
) -> Blueprint:
    """Make the API's blueprint, named ``api``."""
    found = _all(machinery)
    whole = _Document.model_validate(document(found, catalogue, version=version))
    described = Route(
        name="openapi",
        method="GET",
        rule="/openapi.json",
        permission=PUBLIC,
        summary="Describe this API.",
        call=lambda _ask: whole,
        tag="machines",
    )
    blueprint = Blueprint("api", __name__)
    for route in (*found, described):
        blueprint.add_url_rule(
            full_rule(route),
            endpoint=route.name,
            view_func=route.view(services),
            methods=[route.method],
        )
    return blueprint


def openapi_document(
    machinery: Machinery, catalogue: Catalogue, *, version: str
) -> dict[str, object]:
    """Write the OpenAPI document."""
    return document(_all(machinery), catalogue, version=version)


def _all(machinery: Machinery) -> Sequence[Route]:
    return (*ROUTES, *machine_routes(machinery))
