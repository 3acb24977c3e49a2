"""Put the pages together into one Flask blueprint."""

from collections.abc import Mapping
from functools import wraps
from typing import Any, cast

from flask import Blueprint, Flask, g
from flask_babel import get_locale

from narthex_operator.services.access import Actor, requires
from narthex_operator.services.interfaces import Services
from narthex_panel import formats, forms, i18n, text
from narthex_panel.assets import Assets
from narthex_panel.live import Live
from narthex_panel.page import Answer, Page, Route, Ui
from narthex_panel.pages import PAGES


def build(services: Services, *, version: str, live: Live | None = None) -> Blueprint:
    """Make the panel's blueprint, named ``panel``.

    The application's pipeline must set ``g.actor`` and ``g.session`` before a view runs, check
    the permission that each view declares, and check CSRF tokens.
    """
    blueprint = Blueprint("panel", __name__, template_folder="templates")
    assets = Assets()
    streams = live or Live()
    for page in PAGES:
        for route in page.routes:
            blueprint.add_url_rule(
                route.rule,
                endpoint=f"{page.name}_{route.view.__name__}",
                view_func=_view(services, streams, page, route),
                methods=list(route.methods),
            )
    blueprint.add_url_rule(
        "/static/panel/<version>/<path:name>", endpoint="static", view_func=assets.view()
    )
    blueprint.record_once(
        lambda state: _install(cast("Flask", state.app), services, assets, version)
    )
    return blueprint


def _view(services: Services, live: Live, page: Page, route: Route) -> Any:
    @requires(route.permission)
    @wraps(route.view)
    def view(**params: Any) -> Answer:
        ui = Ui(services=services, live=live, page=page, session=g.get("session"))
        return route.view(ui, **params)

    return view


def _install(app: Flask, services: Services, assets: Assets, version: str) -> None:
    i18n.install(app)
    # Templates write their blocks on lines of their own; without this pages are half blanks.
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(
        clean=text.clean,
        duration=formats.duration,
        iso=formats.iso,
        level=formats.level,
        number=formats.number,
        one_line=text.one_line,
        percent=formats.percent,
        size=formats.size,
        translated=i18n.translated,
        utc=formats.utc,
        written=forms.written,
    )

    def values() -> Mapping[str, Any]:
        actor = g.get("actor")
        signed_in = actor if isinstance(actor, Actor) else None
        return {
            "asset": assets.url,
            "csrf_token": g.session.csrf if g.get("session") else "",
            "language": str(get_locale() or "en"),
            "languages": i18n.LANGUAGES,
            "navigation": [
                (page, page.count(services, signed_in))
                for page in PAGES
                if page.visible_to(signed_in)
            ],
            "session": g.get("session"),
            "theme": i18n.theme(),
            "version": version,
        }

    app.context_processor(lambda: dict(values()))
