"""Put panel, API and pipeline together into one Flask application."""

from collections.abc import Callable

from flask import Blueprint, Flask

from narthex_exporter.contract.spec import Catalogue
from narthex_operator import api
from narthex_operator.pipeline import Pipeline, check_declared
from narthex_operator.services.interfaces import Services


def create_app(
    services: Services,
    *,
    machinery: api.Machinery,
    pipeline: Pipeline,
    catalogue: Catalogue,
    version: str,
    panel: Callable[[Services], Blueprint] | None = None,
) -> Flask:
    """Build the application. Raises UndeclaredViewError for a route without a permission."""
    app = Flask("narthex_operator", static_folder=None, template_folder=None)
    app.debug = False
    pipeline.install(app)
    app.register_blueprint(api.build(services, machinery, catalogue, version=version))
    if panel is not None:
        app.register_blueprint(panel(services))
    check_declared(app)
    return app
