"""The server under TLS: who gets in, who does not, and that nobody blocks another."""

import concurrent.futures
import contextlib
import datetime as dt
import socket
import ssl
import threading
import time
from dataclasses import replace
from typing import Any

import psutil
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.transport.identity import Role, spiffe_uri
from narthex_exporter.transport.server import Limits
from narthex_exporter.transport.tls import (
    ReloadingContext,
    TLSFileError,
    TLSFiles,
    client_context,
    server_context,
)

CLUSTER = "0123456789abcdef"
HOUR = dt.timedelta(hours=1)
REQUEST = b"GET /who HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def ask(site: Any, files: TLSFiles, *, source: str = "") -> bytes:
    """Send a request; what a refusal looks like is an error or nothing."""
    try:
        with site.secure(files, source=source) as sock:
            sock.sendall(REQUEST)
            found = b""
            while chunk := sock.recv(65536):
                found += chunk
            return found
    except (ssl.SSLError, ConnectionError):
        return b""


def test_a_peer_is_known_by_its_certificate(site: Any, authority: Any) -> None:
    reply = ask(site(), authority.leaf(Role.OPERATOR, "main"))
    assert reply.endswith(spiffe_uri(CLUSTER, Role.OPERATOR, "main").encode())


def test_only_tls_1_3_is_spoken(site: Any, authority: Any) -> None:
    place = site(limits=Limits(connections_per_peer=200))
    files = authority.leaf()
    old = client_context(files)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    refused = 0
    for _ in range(100):
        with place.connect() as raw, contextlib.suppress(ConnectionError):
            try:
                old.wrap_socket(raw, server_hostname="localhost").close()
            except ssl.SSLError:
                refused += 1
    assert refused == 100
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: ask(place, files), range(100)))
    assert all(b" 200 " in reply for reply in replies)


def test_a_session_cannot_be_resumed(site: Any, authority: Any) -> None:
    place = site()
    context = client_context(authority.leaf())
    session = None
    for _ in range(3):
        with (
            place.connect() as raw,
            context.wrap_socket(raw, server_hostname="localhost", session=session) as sock,
        ):
            sock.sendall(REQUEST)
            assert sock.recv(65536)
            assert not sock.session_reused
            session = sock.session or session


def test_without_a_certificate_no_request_reaches_the_application(
    site: Any, authority: Any
) -> None:
    place = site()
    context = ssl.create_default_context(cafile=authority.file)
    for _ in range(20):
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            place.connect() as raw,
            context.wrap_socket(raw, server_hostname="localhost") as sock,
        ):
            sock.sendall(REQUEST)
            assert sock.recv(100) == b""
    assert not place.app.seen


def test_certificates_of_others_are_refused(site: Any, authority: Any, stranger: Any) -> None:
    place = site()
    wrong = [
        stranger.leaf(),
        authority.leaf(cluster="f" * 16, file="other-cluster"),
        authority.leaf(self_signed=True, file="self-signed"),
    ]
    for files in wrong:
        trusting = TLSFiles(cert=files.cert, key=files.key, ca=authority.file)
        for _ in range(20):
            assert ask(place, trusting) == b""
    assert not place.app.seen


ONE = spiffe_uri(CLUSTER, Role.SCRAPE, "one")


@pytest.mark.parametrize(
    "odd",
    [
        {"uris": [ONE, spiffe_uri(CLUSTER, Role.OPERATOR, "one")]},
        {"uris": []},
        {"ca": True},
        {"cert_sign": True},
        {"starts": -2 * HOUR, "ends": -HOUR},
        {"starts": HOUR, "ends": 2 * HOUR},
        {"usages": [ExtendedKeyUsageOID.SERVER_AUTH]},
        {"uris": [ONE.replace("narthex.internal", "example.org")]},
        {"uris": [ONE.replace("/scrape/", "/root/")]},
        {"uris": [ONE + "/more"]},
        {"uris": [ONE.replace("/one", "/ONE%20x")]},
        {"uris": [ONE.replace("spiffe", "https")]},
        {"uris": [ONE + "?x"]},
        {"uris": [ONE.replace("spiffe://", "spiffe://user@")]},
    ],
    ids=str,
)
def test_a_malformed_leaf_is_refused(site: Any, authority: Any, odd: dict[str, Any]) -> None:
    place = site()
    assert ask(place, authority.leaf(file="odd", **odd)) == b""
    assert not place.app.seen


def test_a_leaf_outside_its_authoritys_constraint_is_refused(site: Any, constrained: Any) -> None:
    place = replace(site, server_files=constrained.leaf(Role.NODE, "n1"))()
    assert ask(place, constrained.leaf(Role.SCRAPE, "in"))
    outside = constrained.leaf(Role.SCRAPE, "out", cluster="f" * 16)
    assert ask(place, outside) == b""


def test_a_new_certificate_serves_without_a_restart(site: Any, authority: Any) -> None:
    place = site()
    client = authority.leaf()

    def shown() -> bytes:
        with place.secure(client) as sock:
            found: bytes = sock.getpeercert(binary_form=True)
            sock.sendall(REQUEST)
            assert sock.recv(65536)
            return found

    first = shown()
    fresh = authority.leaf(Role.NODE, "n1", file="renewed")
    place.files.key.write_bytes(fresh.key.read_bytes())
    place.files.cert.write_bytes(b"half a certif")
    assert shown() == first  # a half-written renewal does not close the port
    place.files.cert.write_bytes(fresh.cert.read_bytes())
    assert shown() != first


def test_contexts_fail_closed(authority: Any) -> None:
    context = server_context(authority.leaf())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.num_tickets == 0
    with pytest.raises(TLSFileError, match="CA"):
        client_context(TLSFiles(cert=authority.leaf().cert, key=authority.leaf().key))


def test_a_key_that_others_can_read_is_refused(authority: Any) -> None:
    files = authority.leaf(file="open")
    files.key.chmod(0o640)
    with pytest.raises(TLSFileError, match="0640") as caught:
        server_context(files)
    assert "chmod 600" in caught.value.hint


def test_a_missing_certificate_is_told_at_the_start(authority: Any, tmp_path: Any) -> None:
    files = TLSFiles(cert=tmp_path / "none.pem", key=authority.leaf().key, ca=authority.file)
    with pytest.raises(NarthexError, match=r"none\.pem"):
        ReloadingContext(files).get()


def test_a_node_answers_with_its_name_or_the_caller_sends_nothing(
    site: Any, authority: Any
) -> None:
    place = site()
    context = client_context(authority.leaf(Role.OPERATOR, "main"))
    with place.connect() as raw, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(raw, server_hostname=f"n2.node.{CLUSTER}.narthex.internal")
    assert not place.app.seen


def test_a_handshake_that_drips_is_cut(site: Any, authority: Any) -> None:
    place = site(limits=Limits(handshake_seconds=0.5))
    began = time.monotonic()
    with (  # noqa: PT012 - when it is cut is not known
        place.connect() as sock,
        pytest.raises((BrokenPipeError, ConnectionResetError)),
    ):
        sock.sendall(b"\x16\x03\x01\x02\x00")
        while time.monotonic() - began < 5:
            sock.sendall(b"\x01")
            time.sleep(0.05)
    assert time.monotonic() - began < 2


def test_strangers_cannot_shut_out_who_has_a_certificate(site: Any, authority: Any) -> None:
    place = site(limits=Limits(connections=8, connections_per_peer=8))
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(place.connect())
        while place.server.connections < 8:
            time.sleep(0.01)
        assert b" 200 " in ask(place, authority.leaf(), source="127.0.0.2")


def test_silent_connections_do_not_shut_out_their_own_address(
    site: Any, authority: Any, besieged: Any
) -> None:
    place = site()
    files = authority.leaf()
    descriptors = psutil.Process().num_fds()
    times = []
    with besieged(place, place.connect) as siege:
        before = siege.opened
        for _ in range(20):
            start = time.monotonic()
            assert b" 200 " in ask(place, files)
            times.append(time.monotonic() - start)
            time.sleep(0.05)
        assert siege.opened - before > 64  # more than there are places
    assert max(times) < 1
    assert psutil.Process().num_fds() <= descriptors


def test_hundreds_of_stalled_peers_delay_nobody(site: Any, authority: Any) -> None:
    place = site()
    files = authority.leaf()
    memory = psutil.Process().memory_info().rss
    idle, stop = [], threading.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(stop.set)
        for number in range(450):
            sock = stack.enter_context(place.connect(source=f"127.0.1.{number % 8 + 1}"))
            if number >= 400:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(b"\x16\x03\x01\x02\x00\x01")
            idle.append(sock)
        connected = time.monotonic()
        drips = [_dripping(place, files, stack) for _ in range(50)]
        dripper = threading.Thread(target=_drip, args=(drips, stop))
        dripper.start()
        times = []
        for _ in range(100):
            start = time.monotonic()
            assert b" 200 " in ask(place, files, source="127.0.0.2")
            times.append(time.monotonic() - start)
        assert sorted(times)[98] < 1.0
        # 20 MiB for each end: the peers live in this process too.
        assert psutil.Process().memory_info().rss - memory < 40 << 20
        while place.server.strangers:
            assert time.monotonic() - connected < 6.5
            time.sleep(0.05)
        for sock in idle:
            sock.settimeout(1)
            with contextlib.suppress(ConnectionError):
                assert sock.recv(10) == b""
        stop.set()
        dripper.join()


def _dripping(place: Any, files: TLSFiles, stack: contextlib.ExitStack) -> ssl.SSLSocket:
    sock: ssl.SSLSocket = stack.enter_context(place.secure(files, source="127.0.2.1"))
    return sock


def _drip(socks: list[socket.socket], stop: threading.Event) -> None:
    while not stop.wait(1.0):
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.sendall(b"G")
