"""Accounts and nodes in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tests.panel.world import World, node

from narthex_operator.errors import (
    ConflictError,
    InvalidError,
    LimitedError,
    NotSignedInError,
)
from narthex_operator.services.access import Actor
from narthex_operator.services.views import (
    JoinView,
    NodeState,
    NodeView,
    SessionView,
    UserView,
)


@dataclass
class FakeAccounts:
    world: World

    def sign_in(self, name: str, password: str, *, address: str, user_agent: str) -> str:
        if name == "locked":
            raise LimitedError(
                "too many tries to sign in as locked", retry_after_seconds=90, hint="wait"
            )
        if name != "anna" or password != self.world.password:
            raise NotSignedInError("the name or the password is wrong", hint="check both")
        return "session-token"

    def session(
        self, token: str, *, address: str, touch: bool = True
    ) -> tuple[Actor, SessionView]:
        if token in self.world.ended_sessions or not token:
            raise NotSignedInError("the session has ended", hint="sign in again")
        view = SessionView(
            user=self.world.user,
            csrf="csrf-token",
            must_change_password=self.world.must_change_password,
        )
        return self.world.actor, view

    def sign_out(self, token: str) -> None:
        self.world.ended_sessions.add(token)

    def change_password(self, actor: Actor, token: str, *, old: str, new: str) -> str:
        if old == "too often":
            raise LimitedError("too many tries to sign in", retry_after_seconds=20.2, hint="wait")
        if old != self.world.password:
            raise InvalidError("the old password is wrong")
        self.world.password, self.world.must_change_password = new, False
        return "another-token"

    def set_preferences(self, actor: Actor, *, language: str, theme: str) -> None:
        self.world.language, self.world.theme = language, theme

    def authenticate_token(self, bearer: str, *, address: str) -> Actor:
        raise NotSignedInError("no such token")

    def users(self, actor: Actor) -> Sequence[UserView]:
        actor.require("user:read")
        return [self.world.user]

    def add_user(self, actor: Actor, *, name: str, role: str, password: str | None) -> str:
        actor.require("user:write")
        return "first-password"

    def reset_password(self, actor: Actor, *, name: str) -> str:
        actor.require("user:write")
        return "first-password"

    def unlock(self, actor: Actor, *, name: str) -> None:
        actor.require("user:write")

    def create_token(self, actor: Actor, *, name: str, role: str, lifetime: timedelta) -> str:
        actor.require("token:write")
        return "nxt_token"


@dataclass
class FakeNodes:
    world: World

    def list(self, actor: Actor) -> Sequence[NodeView]:
        actor.require("node:read")
        return self.world.nodes()

    def get(self, actor: Actor, ref: str) -> NodeView:
        actor.require("node:read")
        return self.world.find(ref)

    def add(self, actor: Actor, *, name: str, address: str, lifetime: timedelta) -> JoinView:
        actor.require("node:write")
        if name == "web-1":
            raise ConflictError("there is a node web-1 already", hint="choose another name")
        return JoinView(
            node=node(name, NodeState.JOINING, 99),
            token="nxj_Zm9vYmFy",
            ca_pin="sha256:5f3c9a",
            command="narthex join https://ops.example:19101 --token nxj_Zm9vYmFy"
            " --ca-pin sha256:5f3c9a0d9a7b4a4f8fbd0f4f9e8f1c2d3e4f5a6b7c8d9e0f",
            expires_at=self.world.time + lifetime,
        )

    def approve(self, actor: Actor, ref: str) -> NodeView:
        actor.require("node:write")
        found = self.world.find(ref)
        self.world.approved.add(found.id)
        return found

    def set_ceiling(self, actor: Actor, ref: str, *, ceiling: Mapping[str, str]) -> NodeView:
        actor.require("node:write")
        found = self.world.find(ref)
        self.world.ceilings[found.id] = dict(ceiling)
        return self.world.find(ref)

    def remove(self, actor: Actor, ref: str) -> NodeView:
        actor.require("node:write")
        return self.world.find(ref)

    def label(
        self,
        actor: Actor,
        ref: str,
        *,
        labels: Mapping[str, str] | None = None,
        group: str | None = None,
    ) -> NodeView:
        actor.require("node:write")
        if labels and "name" in labels:
            raise InvalidError("labels.name: this name is taken")
        self.world.submitted.append({"labels": labels, "group": group})
        return self.world.find(ref)
