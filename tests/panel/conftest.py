"""Give tests a panel over fakes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.panel.fakes import World, services
from tests.panel.webapp import COOKIE, make_app


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def client(world: World) -> Iterator[FlaskClient]:
    app = make_app(services(world))
    with app.test_client() as made:
        made.set_cookie(COOKIE, "session-token", domain="localhost", secure=True)
        made.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
        yield made
