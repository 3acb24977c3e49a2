from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from narthex_exporter.contract.spec import Danger
from narthex_operator.db import Database
from narthex_operator.errors import ConflictError, DeniedError, InvalidError, NotSignedInError
from narthex_operator.services.access import GRANTS, Actor, Role, local_actor
from narthex_operator.services.accounts import AccountService

ME = local_actor("t")
DAY = timedelta(days=1)


def test_a_token_may_what_its_role_may(accounts: AccountService) -> None:
    token = accounts.create_token(ME, name="ci", role="viewer", lifetime=DAY)
    actor = accounts.authenticate_token(token, address="192.0.2.1")
    assert actor.id.startswith("key:")
    assert actor.may("node:read")
    assert not actor.may("action:service.restart")


def test_no_token_alone_may_destroy(accounts: AccountService) -> None:
    token = accounts.create_token(ME, name="ci", role="admin", lifetime=DAY)
    actor = accounts.authenticate_token(token, address="")
    assert actor.may("action:x.y", danger=Danger.DISRUPTIVE)
    assert not actor.may("action:x.y", danger=Danger.DESTRUCTIVE)


def test_a_token_expires(accounts: AccountService, clock: Any) -> None:
    token = accounts.create_token(ME, name="ci", role="viewer", lifetime=DAY)
    clock.pass_(days=1)
    with pytest.raises(NotSignedInError):
        accounts.authenticate_token(token, address="")


def test_the_database_holds_no_secret(accounts: AccountService, database: Database) -> None:
    token = accounts.create_token(ME, name="ci", role="viewer", lifetime=DAY)
    with database.reading() as session:
        tokens = session.execute(text("SELECT * FROM api_tokens")).all()
        rows = session.execute(text("SELECT * FROM audit")).all()
    assert token.split("_", 2)[2] not in repr((tokens, rows))


@pytest.mark.parametrize(
    "wrong", ["", "nok", "nok_x_y", "nok_{id}_" + "A" * 43, "nok_ffffffffffff_" + "A" * 43,
              "' OR 1=1 --", "\udc80", "x" * 100_000]
)  # fmt: skip
def test_what_is_no_token_is_refused(accounts: AccountService, wrong: str) -> None:
    token = accounts.create_token(ME, name="ci", role="viewer", lifetime=DAY)
    with pytest.raises(NotSignedInError):
        accounts.authenticate_token(wrong.replace("{id}", token.split("_")[1]), address="")


@pytest.mark.parametrize(
    "changes", [{"lifetime": timedelta(days=91)}, {"lifetime": timedelta(0)}, {"role": "root"},
                {"name": "x\ny"}]
)  # fmt: skip
def test_a_token_beyond_the_limits_is_not_made(
    accounts: AccountService, changes: dict[str, Any]
) -> None:
    wanted: dict[str, Any] = {"name": "ci", "role": "viewer", "lifetime": DAY}
    with pytest.raises(InvalidError):
        accounts.create_token(ME, **(wanted | changes))


def test_only_administrators_manage_accounts(accounts: AccountService) -> None:
    for role in (Role.OPERATOR, Role.VIEWER, Role.AUDITOR):
        actor = Actor(id="user:9", name="x", grants=GRANTS[role])
        for call in (
            lambda a=actor: accounts.users(a),
            lambda a=actor: accounts.add_user(a, name="x", role="admin", password=None),
            lambda a=actor: accounts.reset_password(a, name="x"),
            lambda a=actor: accounts.unlock(a, name="x"),
            lambda a=actor: accounts.create_token(a, name="x", role="admin", lifetime=DAY),
        ):
            with pytest.raises(DeniedError):
                call()


def test_a_name_is_given_once_and_must_be_one(accounts: AccountService, anna: str) -> None:
    with pytest.raises(ConflictError):
        accounts.add_user(ME, name="anna", role="viewer", password=None)
    for name in ("", "Anna", "a b", "x" * 33, "'; DROP TABLE users; --"):
        with pytest.raises(InvalidError):
            accounts.add_user(ME, name=name, role="viewer", password=None)


def test_preferences_are_kept(accounts: AccountService, anna: str) -> None:
    token = accounts.sign_in("anna", anna, address="", user_agent="")
    actor, _ = accounts.session(token, address="")
    accounts.set_preferences(actor, language="ru", theme="dark")
    user = accounts.session(token, address="")[1].user
    assert (user.language, user.theme) == ("ru", "dark")
    with pytest.raises(InvalidError):
        accounts.set_preferences(actor, language="<x>", theme="dark")
