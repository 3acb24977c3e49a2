import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.registry import CollectorRegistry

from narthex_exporter.contract.ticketkeys import KEYS_PATH
from narthex_exporter.transport.identity import Identity, Role
from narthex_exporter.transport.server import PEER, Listener, Server, listen_tcp
from narthex_operator.errors import UnreachableError
from narthex_operator.gateway import MAX_BYTES, PUSH_PATH, Gateway

PUSH = {"streams": [{"stream": {"job": "file"}, "values": [["1", "a line"]]}]}


class Store:
    """A log store that keeps what it is given, and answers as told."""

    def __init__(self) -> None:
        self.pushes: list[Any] = []
        self.status = "204 No Content"
        self.headers: list[tuple[str, str]] = []

    def __call__(self, environ: dict[str, Any], start: Any) -> list[bytes]:
        assert environ["PATH_INFO"] == PUSH_PATH
        self.pushes.append(json.loads(gzip.decompress(environ["wsgi.input"].read())))
        start(self.status, self.headers)
        return []


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def url(store: Store) -> Iterator[str]:
    sock = listen_tcp("127.0.0.1", 0)
    with Server(store, [Listener(sock=sock)]):
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def gateway(url: str, registry: CollectorRegistry) -> Iterator[Gateway]:
    found = Gateway(
        name_of=lambda peer: {"n1": "web-1"}.get(peer.id),
        logs_url=url,
        ticket_keys=lambda: {"version": 7},
        registry=registry,
    )
    yield found
    found._session.close()


def peer(name: str = "n1", role: Role = Role.NODE) -> Identity:
    return Identity(cluster="c", role=role, id=name, serial=1, fingerprint="f")


def push(
    gateway: Gateway,
    body: bytes,
    *,
    who: Identity | None,
    kind: str = "application/json",
    encoding: str = "",
    method: str = "POST",
    path: str = PUSH_PATH,
) -> tuple[str, dict[str, str], bytes]:
    told: list[Any] = []
    environ = {
        PEER: who,
        "PATH_INFO": path,
        "REQUEST_METHOD": method,
        "CONTENT_TYPE": kind,
        "HTTP_CONTENT_ENCODING": encoding,
        "wsgi.input": io.BytesIO(body),
    }
    reply = b"".join(gateway(environ, lambda *words: told.append(words)))
    return told[0][0][:3], dict(told[0][1]), reply


def test_the_certificates_name_replaces_what_the_lines_claim(
    gateway: Gateway, store: Store, registry: CollectorRegistry
) -> None:
    forged = {"streams": [*PUSH["streams"], {"stream": {"node": "web-2"}, "values": []}]}
    assert push(gateway, json.dumps(forged).encode(), who=peer())[0] == "204"
    assert [stream["stream"]["node"] for stream in store.pushes[0]["streams"]] == ["web-1"] * 2
    assert (
        registry.get_sample_value("narthex_gateway_renamed_streams_total", {"node": "web-1"}) == 1
    )


def test_half_a_surrogate_pair_is_passed_on_and_breaks_nothing(
    gateway: Gateway, store: Store
) -> None:
    body = b'{"streams": [{"stream": {}, "values": [["1", "\\ud800"]]}]}'
    assert push(gateway, body, who=peer())[0] == "204"
    assert store.pushes[0]["streams"][0]["values"] == [["1", "\ud800"]]


def test_gzip_is_taken(gateway: Gateway, store: Store) -> None:
    body = gzip.compress(json.dumps(PUSH).encode())
    assert push(gateway, body, who=peer(), encoding="gzip")[0] == "204"
    assert store.pushes[0]["streams"][0]["values"] == [["1", "a line"]]


@pytest.mark.parametrize(
    "who", [None, peer("n2"), peer(role=Role.OPERATOR), peer(role=Role.SCRAPE)]
)
def test_nobody_but_an_accepted_node_may_push(
    gateway: Gateway, store: Store, who: Identity | None
) -> None:
    assert push(gateway, json.dumps(PUSH).encode(), who=who)[0] == "403"
    assert not store.pushes


def test_a_busy_stores_answer_is_passed_on(gateway: Gateway, store: Store) -> None:
    store.status, store.headers = "429 Too Many Requests", [("Retry-After", "7")]
    status, headers, _ = push(gateway, json.dumps(PUSH).encode(), who=peer())
    assert (status, headers["Retry-After"]) == ("429", "7")


def test_a_store_that_is_gone_means_try_again(registry: CollectorRegistry) -> None:
    gateway = Gateway(
        name_of=lambda _: "web-1",
        logs_url="http://127.0.0.1:9",
        ticket_keys=lambda: {"version": 7},
        registry=registry,
    )
    assert push(gateway, json.dumps(PUSH).encode(), who=peer())[0] == "503"
    gateway._session.close()


@pytest.mark.parametrize(
    ("body", "kind", "encoding", "status"),
    [
        (b"", "application/json", "", "400"),
        (b"[]", "application/json", "", "400"),
        (b"[" * 100_000, "application/json", "", "400"),
        (b'{"streams": 1}', "application/json", "", "400"),
        (b'{"streams": [1]}', "application/json", "", "400"),
        (b'{"streams": [{"stream": []}]}', "application/json", "", "400"),
        (b"not gzip", "application/json", "gzip", "400"),
        (gzip.compress(b" " * (MAX_BYTES + 1), mtime=0), "application/json", "gzip", "413"),
        (gzip.compress(b"{}", mtime=0)[:-4], "application/json", "gzip", "413"),
        (b"{}", "application/x-protobuf", "", "415"),
        (b"{}", "application/json", "br", "415"),
    ],
)
def test_hostile_pushes_are_refused(
    gateway: Gateway, store: Store, body: bytes, kind: str, encoding: str, status: str
) -> None:
    assert push(gateway, body, who=peer(), kind=kind, encoding=encoding)[0] == status
    assert not store.pushes


def test_nothing_else_is_served(gateway: Gateway) -> None:
    assert push(gateway, b"", who=peer(), path="/loki/api/v1/query")[0] == "404"
    assert push(gateway, b"", who=peer(), method="GET")[0] == "405"


def test_a_node_is_given_the_ticket_keys(gateway: Gateway) -> None:
    status, headers, body = push(gateway, b"", who=peer(), method="GET", path=KEYS_PATH)
    assert (status, headers["Content-Type"]) == ("200", "application/json")
    assert json.loads(body) == {"version": 7}
    assert push(gateway, b"", who=peer(), path=KEYS_PATH)[0] == "405"


@pytest.mark.parametrize("who", [None, peer("n2"), peer(role=Role.OPERATOR)])
def test_nobody_else_is_given_them(gateway: Gateway, who: Identity | None) -> None:
    assert push(gateway, b"", who=who, method="GET", path=KEYS_PATH)[0] == "403"


def test_keys_that_the_signer_does_not_give_now_are_to_be_asked_for_again(
    gateway: Gateway,
) -> None:
    def away() -> Any:
        raise UnreachableError("the signer does not answer")

    gateway.ticket_keys = away
    assert push(gateway, b"", who=peer(), method="GET", path=KEYS_PATH)[0] == "503"
