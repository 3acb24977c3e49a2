"""Write what derives from the routes alone: their list, and the OpenAPI document."""

import importlib.metadata
import json
from typing import Any, Final, cast

from prometheus_client import CollectorRegistry

from narthex_operator.api import Machinery, openapi_document
from narthex_operator.app import CATALOGUE
from narthex_operator.pipeline import Pipeline, routes_of
from narthex_operator.webapp import create_app
from narthex_panel import build as build_panel

# No request is made here: what would answer one is not needed.
_NOBODY: Final = cast("Any", None)


def routes() -> str:
    """List every route with its method and permission, a line each."""
    app = create_app(
        _NOBODY,
        machinery=_machinery(),
        pipeline=Pipeline(accounts=_NOBODY, origin="https://localhost", hosts=()),
        catalogue=CATALOGUE,
        version=_version(),
        panel=lambda services: build_panel(services, version=_version()),
    )
    return "\n".join(routes_of(app)) + "\n"


def openapi() -> str:
    """Write the OpenAPI document as JSON."""
    found = openapi_document(_machinery(), CATALOGUE, version=_version())
    return json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _machinery() -> Machinery:
    return Machinery(
        enrolment=_NOBODY, registry=CollectorRegistry(), refresh_seconds=1, amiss=lambda: ""
    )


def _version() -> str:
    return importlib.metadata.version("narthex")
