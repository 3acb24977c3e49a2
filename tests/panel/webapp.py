"""The panel behind the operator's own pipeline, over whatever services a test gives."""

from flask import Flask

from narthex_operator.pipeline import COOKIE, Pipeline, check_declared
from narthex_operator.services.interfaces import Services
from narthex_panel import build, render_error
from narthex_panel.live import Live

__all__ = ["COOKIE", "make_app"]


def make_app(
    services: Services, *, live: Live | None = None, origin: str = "https://localhost"
) -> Flask:
    app = Flask("panel", static_folder=None, template_folder=None)
    Pipeline(
        accounts=services.accounts,
        origin=origin,
        hosts=("localhost",),
        render_error=render_error,
    ).install(app)
    app.register_blueprint(build(services, version="0.1.0", live=live))
    check_declared(app)
    return app
