"""Let a page module declare its routes, permission, title and place in the navigation."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Concatenate, Final, ParamSpec

from flask import Response, g, render_template, request

from narthex_exporter.actions import CATALOGUE
from narthex_operator.errors import NotSignedInError, OperatorError
from narthex_operator.services.access import PUBLIC, SIGNED_IN, Actor
from narthex_operator.services.interfaces import Services
from narthex_operator.services.views import SessionView
from narthex_panel.live import Live

P = ParamSpec("P")
Answer = str | Response | tuple[str, int] | tuple[str, int, dict[str, str]]
View = Callable[..., Answer]

FRAGMENT_HEADER: Final = "HX-Request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ui:
    """What a view is given: the services, and who asks."""

    services: Services
    live: Live
    page: "Page"
    session: SessionView | None

    @property
    def actor(self) -> Actor:
        """Whoever asks. Raises NotSignedInError on public pages."""
        actor = g.get("actor")
        if not isinstance(actor, Actor):
            raise NotSignedInError("you are not signed in", hint="sign in and try again")
        return actor

    @property
    def account(self) -> SessionView:
        """The session of whoever asks. Raises NotSignedInError for who has none."""
        if self.session is None:
            raise NotSignedInError("this needs a person's session", hint="sign in in a browser")
        return self.session

    @property
    def is_fragment(self) -> bool:
        """Tell whether htmx asks for a part of a page."""
        return request.headers.get(FRAGMENT_HEADER) == "true"

    def may(self, permission: str) -> bool:
        """Tell whether whoever asks holds a permission."""
        return self.actor.may(permission)

    def may_run(self, action: str) -> bool:
        """Tell whether whoever asks may run an action at its danger."""
        declared = CATALOGUE[action]
        return self.actor.may(declared.permission, danger=declared.danger)

    def render(self, template: str, **values: Any) -> str:
        """Render a template of the panel's own."""
        return render_template(f"panel/{template}", ui=self, page=self.page, **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route of a page."""

    rule: str
    view: View
    methods: tuple[str, ...]
    permission: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page: a module in ``pages/`` declares it, ``PAGES`` names the module.

    ``title`` is a lazy translation; pages with ``nav`` stand in the navigation of whoever holds
    ``permission``, in the order of PAGES, with the number that ``badge`` gives where it is not 0.
    """

    name: str
    title: Any
    permission: str
    rule: str = ""
    icon: str = ""
    nav: bool = False
    badge: Callable[[Services, Actor], int] | None = None
    routes: list[Route] = field(default_factory=list)

    def get(
        self, rule: str, *, permission: str | None = None
    ) -> Callable[[Callable[Concatenate[Ui, P], Answer]], Callable[Concatenate[Ui, P], Answer]]:
        """Declare a view that answers GET, by default with the page's permission."""
        return self._route(rule, ("GET",), permission)

    def post(
        self, rule: str, *, permission: str | None = None
    ) -> Callable[[Callable[Concatenate[Ui, P], Answer]], Callable[Concatenate[Ui, P], Answer]]:
        """Declare a view that answers POST, by default with the page's permission."""
        return self._route(rule, ("POST",), permission)

    def visible_to(self, actor: Actor | None) -> bool:
        """Tell whether the page stands in somebody's navigation."""
        if not self.nav or actor is None:
            return False
        return self.permission in {PUBLIC, SIGNED_IN} or actor.may(self.permission)

    def count(self, services: Services, actor: Actor | None) -> int:
        """Count what waits for somebody on this page; 0 where that cannot be told now."""
        if self.badge is None or actor is None:
            return 0
        try:
            return self.badge(services, actor)
        except OperatorError:
            return 0

    def _route(
        self, rule: str, methods: tuple[str, ...], permission: str | None
    ) -> Callable[[Callable[Concatenate[Ui, P], Answer]], Callable[Concatenate[Ui, P], Answer]]:
        def declare(
            view: Callable[Concatenate[Ui, P], Answer],
        ) -> Callable[Concatenate[Ui, P], Answer]:
            needed = self.permission if permission is None else permission
            self.routes.append(Route(rule=rule, view=view, methods=methods, permission=needed))
            return view

        return declare
