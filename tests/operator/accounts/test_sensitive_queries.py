"""What may hold secrets is in no default role's grants but the administrator's."""

import pytest

from narthex_exporter.queries import CATALOGUE
from narthex_operator.services.access import GRANTS, Actor, Grant, Role

SENSITIVE = [name for name, query in CATALOGUE.items() if query.sensitive]


def test_there_are_sensitive_queries() -> None:
    assert "process.environment" in SENSITIVE


@pytest.mark.parametrize("name", SENSITIVE)
@pytest.mark.parametrize("role", list(Role))
def test_only_an_administrator_may_ask_them_unless_somebody_grants_it(
    name: str, role: Role
) -> None:
    permission = CATALOGUE[name].permission
    grants = GRANTS[role]
    actor = Actor(id="user:1", name="x", grants=grants)
    assert actor.may(permission) is (role is Role.ADMIN)
    granted = Actor(id="user:1", name="x", grants=(*grants, Grant(pattern=permission)))
    assert granted.may(permission)


@pytest.mark.parametrize(
    "name", [name for name, one in CATALOGUE.items() if one.permission == f"query:{name}"]
)
def test_a_viewer_may_ask_what_holds_no_secrets(name: str) -> None:
    viewer = Actor(id="user:1", name="x", grants=GRANTS[Role.VIEWER])
    assert viewer.may(CATALOGUE[name].permission)
