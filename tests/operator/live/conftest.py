"""An operator, a node with its actor, and browsers that open streams."""

import contextlib
import http.client
import json
import secrets
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from wsproto.events import AcceptConnection, Event

from narthex_operator.pipeline import COOKIE
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import local_actor
from realnode import RealNode
from realoperator import Operator, make_config, run_operator
from wsclient import Client as Talk

ADMIN = local_actor("tests")
PASSWORD = "a long pass phrase of mine"


@dataclass
class Browser:
    """One person's browser: a session, its token against forged requests, its sockets."""

    operator: Operator
    token: str
    stack: contextlib.ExitStack = field(repr=False)

    @property
    def accounts(self) -> Any:
        return self.operator.parts.core.accounts

    @property
    def origin(self) -> str:
        return self.operator.config.web.external_url

    @property
    def csrf(self) -> str:
        csrf: str = self.accounts.session(self.token, address="127.0.0.1")[1].csrf
        return csrf

    def _connect(self) -> ssl.SSLSocket:
        port = int(self.origin.rpartition(":")[2])
        context = ssl.create_default_context(cafile=self.operator.config.pki_dir / "ca.pem")
        raw = socket.create_connection(("127.0.0.1", port), timeout=15)
        sock = context.wrap_socket(raw, server_hostname="127.0.0.1")
        self.stack.enter_context(contextlib.closing(sock))
        return sock

    def post(self, body: Any, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1")
        connection.sock = self._connect()
        sent = {
            "Content-Type": "application/json", "Sec-Fetch-Site": "same-origin",
            "X-CSRF-Token": self.csrf, "Cookie": f"{COOKIE}={self.token}", **headers,
        }  # fmt: skip
        connection.request("POST", "/live/tickets", json.dumps(body), sent)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())

    def ticket(self, name: str = "process.top", *, node: str = "web-1", **params: Any) -> str:
        reason = "a test" if name == "container.exec" else ""
        asked = {"node": node, "name": name, "params": params, "reason": reason}
        status, answer = self.post(asked)
        assert status == 200, answer
        ticket: str = answer["ticket"]
        return ticket

    def ask(
        self,
        protocols: list[str],
        *,
        path: str = "/live/ws",
        origin: str | None = "",
        cookie: str | None = "",
    ) -> tuple[Talk, Event]:
        headers: list[tuple[bytes, bytes]] = []
        if origin is not None:
            headers.append((b"Origin", (origin or self.origin).encode()))
        if cookie is not None:
            headers.append((b"Cookie", f"{COOKIE}={cookie or self.token}".encode()))
        talk = Talk(self._connect())
        return talk, talk.ask(
            path, host=self.origin.removeprefix("https://"), subprotocols=protocols,
            extra_headers=headers,
        )  # fmt: skip

    def open(self, name: str = "process.top", **params: Any) -> Talk:
        talk, answer = self.ask(["narthex.v1", f"ticket.{self.ticket(name, **params)}"])
        assert isinstance(answer, AcceptConnection), talk.refusal(answer)
        assert answer.subprotocol == "narthex.v1"
        first = talk.json()
        assert first == {"opened": True}, first
        return talk


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operator")
    with contextlib.ExitStack() as stack:
        signer = stack.enter_context(_signer(folder))
        yield stack.enter_context(run_operator(make_config(folder, signer.socket)))


@contextlib.contextmanager
def _signer(folder: Path) -> Iterator[SignerClient]:
    from narthex_exporter.transport.server import Listener, Server
    from narthex_operator.signer.app import SignerApp
    from narthex_operator.signer.keystore import open_key_store
    from narthex_operator.signer.ledger import Ledger
    from narthex_operator.signer.limits import Buckets
    from narthex_operator.signer.peers import listen_for

    store = open_key_store(folder / "signer")
    ledger = Ledger(folder / "signer" / "audit.jsonl")
    app = SignerApp(store=store, ledger=ledger, tickets_allowed=Buckets(burst=1e6, per_second=1e6))
    sock = listen_for(folder / "signer.sock")
    with Server(app=app, listeners=[Listener(sock=sock)]):
        yield SignerClient(socket=folder / "signer.sock")
    ledger.close()
    store.close()


@pytest.fixture(scope="module")
def node(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    signer = operator.parts.core.signer
    one = RealNode(tmp_path_factory.mktemp("node") / "node", signer)
    with one.front(), one.actor():
        one.enter(operator.parts.core.database)
        yield one


@dataclass
class People:
    """Users, each with a browser of their own: one a role, unless somebody new is asked for."""

    operator: Operator
    known: dict[str, str]
    stack: contextlib.ExitStack

    def __call__(self, role: str = "admin") -> Browser:
        if role not in self.known:
            self.known[role] = self._token(role)
        return Browser(self.operator, self.known[role], self.stack)

    def new(self, role: str = "admin") -> Browser:
        return Browser(self.operator, self._token(role), self.stack)

    def _token(self, role: str) -> str:
        accounts = self.operator.parts.core.accounts
        name = f"{role}-{secrets.token_hex(4)}"
        first = accounts.add_user(ADMIN, name=name, role=role, password=None)
        token = accounts.sign_in(name, first, address="127.0.0.1", user_agent="tests")
        actor, _ = accounts.session(token, address="127.0.0.1")
        return accounts.change_password(actor, token, old=first, new=PASSWORD)


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    """The sessions of those that tests share."""
    return {}


@pytest.fixture
def people(operator: Operator, node: RealNode, known: dict[str, str]) -> Iterator[People]:
    with contextlib.ExitStack() as stack:
        yield People(operator, known, stack)
