"""Users, sessions and API tokens: the one place that decides who somebody is."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from narthex_exporter.contract.spec import Danger
from narthex_exporter.contract.wire import FieldError
from narthex_operator.db.engine import Database
from narthex_operator.db.models import ApiToken, KnownSource, SessionRow, User
from narthex_operator.errors import (
    ConflictError,
    DeniedError,
    InvalidError,
    NotFoundError,
    NotSignedInError,
)
from narthex_operator.security.chain import clean
from narthex_operator.security.passwords import Passwords, check_new_password, new_password
from narthex_operator.services.access import GRANTS, Actor, Role, local_actor
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.lanes import Lanes, source_of
from narthex_operator.services.views import SessionView, UserView

ABSOLUTE: Final = timedelta(hours=12)
IDLE: Final = {
    Role.ADMIN: timedelta(minutes=30),
    Role.OPERATOR: timedelta(minutes=30),
    Role.AUDITOR: timedelta(hours=8),
    Role.VIEWER: timedelta(hours=8),
}
MAX_SESSIONS: Final = 5
MAX_TOKEN_LIFETIME: Final = timedelta(days=90)
_KNOWN_FOR: Final = timedelta(days=180)
_TOUCH: Final = timedelta(seconds=30)
_NAME: Final = re.compile(r"[a-z][a-z0-9._-]{0,31}")
_TOKEN: Final = re.compile(r"nok_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_WRONG: Final = "the name or the password is wrong"


def _now() -> datetime:
    return datetime.now(tz=UTC)


@dataclass(slots=True, kw_only=True)
class AccountService:
    """Implements ``interfaces.Accounts``."""

    database: Database
    audit: AuditLedger
    passwords: Passwords
    clock: Callable[[], datetime] = field(default=_now)

    def sign_in(self, name: str, password: str, *, address: str, user_agent: str) -> str:
        """Return a new session's token. Raises NotSignedInError, LimitedError, InvalidError."""
        name = name.strip().lower()[:64]
        now = self.clock()
        with self.database.session() as session:
            self.database.lock(session, "sign-in")
            user = session.scalar(select(User).where(User.name == clean(name, limit=64)))
            lanes = self._lanes(session, user, name, address)
            lanes.enter(session, now)
        matches = self.passwords.matches(password, user.password_hash if user else None)
        if not matches or user is None or user.disabled:
            self._failed(name, user, address)
            raise NotSignedInError(_WRONG, hint="after some failures each try takes longer")
        fresh = (
            self.passwords.hash(password) if self.passwords.outdated(user.password_hash) else None
        )
        with self.database.session() as session:
            self.database.lock(session, "sign-in")
            current = session.get_one(User, user.id)
            if current.disabled or current.password_hash != user.password_hash:
                raise NotSignedInError(_WRONG)
            current.password_hash = fresh or current.password_hash
            current.last_sign_in_at = now
            lanes.succeed(session, now)
            session.merge(KnownSource(user_id=user.id, source=lanes.source, last_seen_at=now))
            actor = replace(_actor(current), address=address)
            token = self._new_session(session, current, address=address, user_agent=user_agent)
            self._evict(session, actor)
            self.audit.record(session, actor=actor, event="user.signed-in", outcome="ok")
        return token

    def session(
        self, token: str, *, address: str, touch: bool = True
    ) -> tuple[Actor, SessionView]:
        """Look a session up; ``touch=False`` (a page that polls) keeps its idle time running.

        Raises NotSignedInError.
        """
        now = self.clock()
        with self.database.reading() as session:
            row = self._find(session, token)
            if row is None or not _alive(row, now):
                raise NotSignedInError("you are not signed in, or were away too long")
            actor = replace(_actor(row.user), session=row.token_hash[:16], address=address)
            view = SessionView(
                user=_view(row.user),
                csrf=row.csrf,
                must_change_password=row.user.must_change_password,
            )
            stale = touch and now - row.last_seen_at > _TOUCH
        if stale:
            with self.database.session() as session:
                again = self._find(session, token)
                if again is not None:
                    again.last_seen_at = now
        return actor, view

    def sign_out(self, token: str) -> None:
        """End a session; no error when it has ended already."""
        with self.database.session() as session:
            row = self._find(session, token)
            if row is not None:
                session.delete(row)
                actor = replace(_actor(row.user), address=row.address)
                self.audit.record(session, actor=actor, event="user.signed-out")

    def change_password(self, actor: Actor, token: str, *, old: str, new: str) -> str:
        """Change one's own password; ends every other session and returns this one's new token."""
        now = self.clock()
        with self.database.session() as session:
            self.database.lock(session, "sign-in")
            row = self._find(session, token)
            if row is None or not _alive(row, now) or _actor(row.user).id != actor.id:
                raise NotSignedInError("you are not signed in")
            user, row_id = row.user, row.id
            # Whoever holds a stolen session must not try passwords at full speed.
            lanes = Lanes(name=f"{user.name}/change", source=source_of(actor.address), known=True)
            lanes.enter(session, now)
        if not self.passwords.matches(old, user.password_hash):
            raise InvalidError(
                "the present password is wrong", errors=(FieldError(path="old", message="wrong"),)
            )
        check_new_password(new, user=user.name)
        if new == old:
            raise InvalidError("the new password is the old one", hint="choose another")
        hashed = self.passwords.hash(new)
        with self.database.session() as session:
            self.database.lock(session, "sign-in")
            current, own = session.get_one(User, user.id), session.get(SessionRow, row_id)
            if own is None or current.disabled or current.password_hash != user.password_hash:
                raise NotSignedInError("you are not signed in any more")
            current.password_hash, current.must_change_password = hashed, False
            current.password_changed_at = now
            lanes.succeed(session, now)
            address, agent = own.address, own.user_agent
            session.execute(delete(SessionRow).where(SessionRow.user_id == user.id))
            fresh = self._new_session(session, current, address=address, user_agent=agent)
            self.audit.record(session, actor=actor, event="user.password-changed")
        return fresh

    def set_preferences(self, actor: Actor, *, language: str, theme: str) -> None:
        """Keep one's own language and theme."""
        if language not in {"", "en", "ru"} or not re.fullmatch(r"[a-z-]{0,16}", theme):
            raise InvalidError("there is no such language or theme")
        with self.database.session() as session:
            user = session.get(User, _user_id(actor))
            if user is None:
                raise DeniedError("only users have preferences")
            user.language, user.theme = language, theme

    def authenticate_token(self, bearer: str, *, address: str) -> Actor:
        """Tell whose API token this is. Raises NotSignedInError."""
        found = _TOKEN.fullmatch(bearer)
        wrong = NotSignedInError("the API token is unknown, revoked or expired")
        if not found:
            raise wrong
        now = self.clock()
        with self.database.reading() as session:
            row = session.get(ApiToken, found[1])
            owner = session.get(User, row.user_id) if row and row.user_id else None
        kept = row.secret_hash if row else "0" * 64
        same = hmac.compare_digest(kept, _digest(found[2]))
        if row is None or not same or row.revoked_at or row.expires_at <= now:
            raise wrong
        if row.user_id and (owner is None or owner.disabled):
            raise wrong
        if row.last_used_at is None or now - row.last_used_at > _TOUCH:
            with self.database.session() as session:
                session.get_one(ApiToken, row.id).last_used_at = now
        return replace(_key(row), address=address)

    def subject(self, actor_id: str, *, session: str = "", address: str = "") -> Actor:
        """Tell what somebody may do now, for what is done later on their behalf.

        Raises DeniedError for whoever was disabled, revoked or never was.
        """
        kind, _, key = actor_id.partition(":")
        if kind == "local":
            return local_actor(key)
        with self.database.reading() as opened:
            if kind == "user":
                user = opened.get(User, int(key)) if key.isdigit() else None
                actor = None if user is None or user.disabled else _actor(user)
            else:
                actor = self._key_actor(opened, key) if kind == "key" else None
        if actor is None:
            raise DeniedError(
                f"{clean(actor_id, limit=64)} may not act any more: disabled, revoked or expired",
                hint="somebody who may must do it",
            )
        return replace(actor, session=session, address=address)

    def users(self, actor: Actor) -> Sequence[UserView]:
        """List users (permission ``user:read``)."""
        actor.require("user:read")
        with self.database.reading() as session:
            return tuple(_view(user) for user in session.scalars(select(User).order_by(User.name)))

    def add_user(self, actor: Actor, *, name: str, role: str, password: str | None) -> str:
        """Add a user (``user:write``); returns the first password, which must be changed."""
        actor.require("user:write")
        _check_role(role)
        if not _NAME.fullmatch(name):
            raise InvalidError(
                "a user's name has 1 to 32 of a-z, 0-9, dot, dash and underscore, a letter first",
                errors=(FieldError(path="name", message="not a user's name"),),
            )
        if password is not None:
            check_new_password(password, user=name)
        first = password or new_password()
        hashed, now = self.passwords.hash(first), self.clock()
        with self.database.session() as session:
            if session.scalar(select(User.id).where(User.name == name)) is not None:
                raise ConflictError(f"there is a user {name} already")
            session.add(
                User(
                    name=name,
                    role=role,
                    password_hash=hashed,
                    must_change_password=True,
                    created_at=now,
                    password_changed_at=now,
                )
            )
            session.flush()
            self.audit.record(
                session, actor=actor, event="user.added", resource=f"user/{name}",
                details={"role": role},
            )  # fmt: skip
        return first

    def reset_password(self, actor: Actor, *, name: str) -> str:
        """Give a user a new first password (``user:write``) and end their sessions."""
        actor.require("user:write")
        first = new_password()
        hashed = self.passwords.hash(first)
        with self.database.session() as session:
            user = _named(session, name)
            user.password_hash, user.must_change_password = hashed, True
            user.password_changed_at = self.clock()
            session.execute(delete(SessionRow).where(SessionRow.user_id == user.id))
            Lanes(name=user.name, source="", known=False).forget(session)
            self.audit.record(
                session, actor=actor, event="user.password-reset", resource=f"user/{user.name}"
            )
        return first

    def unlock(self, actor: Actor, *, name: str) -> None:
        """Forget a user's failed sign-ins (``user:write``)."""
        actor.require("user:write")
        with self.database.session() as session:
            user = _named(session, name)
            Lanes(name=user.name, source="", known=False).forget(session)
            self.audit.record(
                session, actor=actor, event="user.unlocked", resource=f"user/{user.name}"
            )

    def create_token(self, actor: Actor, *, name: str, role: str, lifetime: timedelta) -> str:
        """Make an API token (``token:write``); it is shown this once."""
        actor.require("token:write")
        _check_role(role)
        if not timedelta(0) < lifetime <= MAX_TOKEN_LIFETIME:
            raise InvalidError(f"an API token lives at most {MAX_TOKEN_LIFETIME.days} days")
        if not _NAME.fullmatch(name):
            raise InvalidError("a token's name has 1 to 32 of a-z, 0-9, dot, dash, underscore")
        key, secret, now = secrets.token_hex(6), secrets.token_urlsafe(32), self.clock()
        with self.database.session() as session:
            session.add(
                ApiToken(
                    id=key,
                    name=name,
                    role=role,
                    secret_hash=_digest(secret),
                    user_id=_user_id(actor),
                    created_at=now,
                    expires_at=now + lifetime,
                )
            )
            session.flush()
            self.audit.record(
                session, actor=actor, event="token.created", resource=f"token/{key}",
                details={"name": name, "role": role, "expires_at": (now + lifetime).isoformat()},
            )  # fmt: skip
        return f"nok_{key}_{secret}"

    def forget_old_sessions(self) -> None:
        """Delete sessions that have ended; a job calls this now and then."""
        with self.database.session() as session:
            session.execute(delete(SessionRow).where(SessionRow.expires_at <= self.clock()))

    def _lanes(self, session: Session, user: User | None, name: str, address: str) -> Lanes:
        source = source_of(address)
        seen = session.get(KnownSource, (user.id, source)) if user else None
        known = seen is not None and self.clock() - seen.last_seen_at < _KNOWN_FOR
        return Lanes(name=name, source=source, known=known)

    def _failed(self, name: str, user: User | None, address: str) -> None:
        # A password typed in the name's field must not come to lie in the audit.
        shown = name if user else "(unknown)"
        actor = Actor(id=f"user:{user.id}" if user else "user:0", name=shown, grants=(),
                      address=address)  # fmt: skip
        self.audit.note(actor, "user.sign-in-failed", outcome="refused")

    def _new_session(self, session: Session, user: User, *, address: str, user_agent: str) -> str:
        token, now = secrets.token_urlsafe(32), self.clock()
        session.add(
            SessionRow(
                token_hash=_digest(token),
                user_id=user.id,
                csrf=secrets.token_urlsafe(32),
                address=clean(address, limit=64),
                user_agent=clean(user_agent, limit=256),
                created_at=now,
                last_seen_at=now,
                expires_at=now + ABSOLUTE,
            )
        )
        session.flush()
        return token

    def _evict(self, session: Session, actor: Actor) -> None:
        rows = session.scalars(
            select(SessionRow)
            .where(SessionRow.user_id == _user_id(actor))
            .order_by(SessionRow.created_at.desc(), SessionRow.id.desc())
        )
        for row in list(rows)[MAX_SESSIONS:]:
            session.delete(row)
            session.flush()
            self.audit.record(
                session, actor=actor, event="session.evicted", details={"address": row.address}
            )

    def _key_actor(self, session: Session, key: str) -> Actor | None:
        row = session.get(ApiToken, key)
        owner = session.get(User, row.user_id) if row and row.user_id else None
        if row is None or row.revoked_at or row.expires_at <= self.clock():
            return None
        if row.user_id and (owner is None or owner.disabled):
            return None
        return _key(row)

    def _find(self, session: Session, token: str) -> SessionRow | None:
        query = select(SessionRow).where(SessionRow.token_hash == _digest(token))
        return session.scalars(query).unique().one_or_none()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret[:256].encode(errors="replace")).hexdigest()


def _alive(row: SessionRow, now: datetime) -> bool:
    idle = now - row.last_seen_at <= IDLE[Role(row.user.role)]
    return idle and now < row.expires_at and not row.user.disabled


def _actor(user: User) -> Actor:
    return Actor(id=f"user:{user.id}", name=user.name, grants=GRANTS[Role(user.role)])


def _key(row: ApiToken) -> Actor:
    # What destroys needs a person: a key alone never reaches it.
    grants = tuple(
        replace(grant, ceiling=min(grant.ceiling, Danger.DISRUPTIVE, key=lambda d: d.rank))
        for grant in GRANTS[Role(row.role)]
    )
    return Actor(id=f"key:{row.id}", name=row.name, grants=grants)


def _user_id(actor: Actor) -> int | None:
    kind, _, number = actor.id.partition(":")
    return int(number) if kind == "user" and number.isdigit() else None


def _named(session: Session, name: str) -> User:
    user = session.scalar(select(User).where(User.name == name))
    if user is None:
        raise NotFoundError(f"there is no user {clean(name, limit=64)}")
    return user


def _check_role(role: str) -> None:
    if role not in set(Role):
        raise InvalidError(
            f"there is no role {clean(role, limit=32)}",
            errors=(FieldError(path="role", message=f"one of {', '.join(Role)}"),),
        )


def _view(user: User) -> UserView:
    return UserView.model_validate({name: getattr(user, name) for name in UserView.model_fields})
