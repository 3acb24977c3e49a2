"""Declare an API route once: its view, its checks and its documentation derive from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

from flask import Response, g, request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from narthex_exporter.contract.wire import FieldError, strict_json
from narthex_operator.errors import InvalidError, NotSignedInError
from narthex_operator.services.access import PUBLIC, Actor, requires
from narthex_operator.services.interfaces import Services

PREFIX: Final = "/api/v1"
JSON: Final = "application/json"
T = TypeVar("T")


class Input(BaseModel):
    """Base of what callers send: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Output(BaseModel):
    """Base of what we answer."""

    model_config = ConfigDict(frozen=True)


class Items(Output, Generic[T]):
    """A list, and how to go on: ``next`` is empty where there is no more."""

    items: tuple[T, ...]
    next: str | int | None = None


class Nothing(Input):
    """No query parameters, or no body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, validated."""

    services: Services
    path: Mapping[str, str]
    query: Any
    body: Any

    @property
    def actor(self) -> Actor:
        """Whoever asks. Raises NotSignedInError where a route is open to all."""
        actor = g.get("actor")
        if not isinstance(actor, Actor):
            raise NotSignedInError("you are not signed in", hint="send a bearer token")
        return actor


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation. ``rule`` is Flask's, below the API's prefix unless it begins there.

    ``call`` answers with a model of type ``reply``, or with a whole Response; ``location`` gives
    the header of that name from the answer.
    """

    name: str
    method: str
    rule: str
    permission: str
    summary: str
    call: Callable[[Ask], BaseModel | Response | None]
    reply: Any = None
    query: type[BaseModel] = Nothing
    body: type[BaseModel] | None = None
    status: int = 200
    machine: bool = False
    location: Callable[[Any], str] | None = None
    tag: str = ""

    def view(self, services: Services) -> Callable[..., Response]:
        """Make the Flask view."""

        @requires(self.permission, machine=self.machine or self.permission == PUBLIC)
        def view(**path: str) -> Response:
            ask = Ask(
                services=services,
                path=path,
                query=_parsed(self.query, _arguments(), "query"),
                body=None if self.body is None else _read_body(self.body),
            )
            answer = self.call(ask)
            if isinstance(answer, Response):
                return answer
            if answer is None:
                return Response(status=self.status)
            response = Response(answer.model_dump_json(), status=self.status, mimetype=JSON)
            if self.location is not None:
                response.headers["Location"] = self.location(answer)
            return response

        return cast("Callable[..., Response]", view)


def _arguments() -> dict[str, str]:
    """Read the query string; a parameter that stands twice is an error, not a choice."""
    found = {}
    for name, values in request.args.lists():
        if len(values) != 1:
            raise InvalidError(f"query.{name[:64]} is given more than once")
        found[name] = values[0]
    return found


def _read_body(model: type[BaseModel]) -> BaseModel:
    if request.mimetype != JSON:
        raise UnsupportedMediaType("the body must be application/json")
    try:
        value = strict_json(request.get_data(cache=False))
    except ValueError as error:
        raise BadRequest("the body is not JSON, or names a key twice") from error
    return _parsed(model, value, "")


def _parsed(model: type[BaseModel], value: Any, where: str) -> BaseModel:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidError(
            "some fields are not valid",
            errors=tuple(
                FieldError(
                    path=".".join(([where] if where else []) + [str(x)[:64] for x in one["loc"]]),
                    message=one["msg"],
                )
                for one in error.errors(
                    include_url=False, include_context=False, include_input=False
                )[:50]
            ),
            hint="correct them and try again",
        ) from error
