"""exporter-toolkit's web-config.yml: read strictly, followed as it changes."""

import base64
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.errors import ConfigError
from narthex_exporter.transport.identity import Role, spiffe_uri
from narthex_exporter.transport.tls import TLSFiles
from narthex_exporter.webconfig import Bucket, Passwords, RateLimit, load_web_config

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
HTPASSWD = HASH.replace("$2b$", "$2y$")
TLS = "tls_server_config: {cert_file: a.pem, key_file: a.key"


def basic(user: str, password: str) -> dict[str, str]:
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "web.yml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def tls(tmp_path: Path, authority: Any) -> Callable[[str], str]:
    """A tls_server_config with relative paths, and whatever else is given."""
    files = authority.leaf(Role.SERVER, "web")
    for source, name in ((files.cert, "web.pem"), (files.key, "web.key"), (files.ca, "ca.pem")):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(source.read_bytes())
    return lambda more: (
        "tls_server_config:\n  cert_file: web.pem\n  key_file: web.key\n"
        + "".join(f"  {line}\n" for line in more.splitlines())
    )


MTLS = "client_ca_file: ca.pem\nclient_auth_type: RequireAndVerifyClientCert"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense: 1", "nonsense"),
        (TLS + ", colour: red}", "tls_server_config.colour"),
        ("tls_server_config: {cert_file: a.pem}", "key_file"),
        (TLS + ", client_auth_type: RequireAnyClientCert}", "client_auth_type"),
        (TLS + ", client_auth_type: RequireAndVerifyClientCert}", "client_ca_file"),
        (TLS + ", client_ca_file: c.pem}", "client_auth_type"),
        (TLS + ", client_allowed_sans: [x]}", "client_allowed_sans"),
        (TLS + ", min_version: TLS10}", "min_version"),
        (TLS + ", cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}", "TLS_RSA_WITH_RC4_128_SHA"),
        (TLS + ", curve_preferences: [CurveP256]}", "curve_preferences"),
        ("tls_server_config: {cert: x, key: y}", "tls_server_config.cert"),
        ("http_server_config: {headers: {X-Made-Up: 1}}", "X-Made-Up"),
        ("basic_auth_users: {alice: secret}", "basic_auth_users.alice"),
        ("basic_auth_users: [alice]", "basic_auth_users"),
        ("rate_limit: {interval: -1}", "rate_limit.interval"),
        ("- a list", "the file"),
        ("a: [", "cannot read"),
    ],
)
def test_a_wrong_file_is_told_by_its_key(
    config: Callable[[str], Path], text: str, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_web_config(config(text))
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_empty_file_is_plain_http(start: Any, config: Callable[[str], Path]) -> None:
    site = start(web_config=config(""))
    assert site.ask("/metrics", role=None, plain=True).status == 200


def test_a_missing_file_is_told(start: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yml"):
        start(web_config=tmp_path / "none.yml")


def test_passwords_are_asked_of_everybody(start: Any, config: Callable[[str], Path]) -> None:
    site = start(web_config=config(f"basic_auth_users: {{alice: '{HTPASSWD}', bob: '{HASH}'}}"))

    def ask(headers: dict[str, str]) -> int:
        status: int = site.ask("/metrics", role=None, plain=True, headers=headers).status
        return status

    assert ask(basic("alice", "secret")) == 200
    assert ask(basic("bob", "secret")) == 200
    wrong: list[dict[str, str]] = [
        {},
        basic("alice", "wrong"),
        basic("alice", ""),
        basic("alice", "x" * 5000),
        basic("mallory", "secret"),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Bearer secret"},
    ]
    for headers in wrong:
        assert ask(headers) == 401
    refusal = site.ask("/metrics", role=None, plain=True)
    assert refusal.headers["WWW-Authenticate"] == "Basic"


def test_tls_without_client_certificates(
    start: Any, config: Callable[[str], Path], tls: Callable[[str], str]
) -> None:
    site = start(web_config=config(tls("min_version: TLS12")))
    assert site.ask("/metrics", role=None).status == 200
    answer = site.ask("/api/v1/manifest", role=None)
    assert (answer.status, answer.json["type"]) == (403, "role-refused")
    # Nobody asked for it, so a certificate proves nothing.
    assert site.ask("/api/v1/manifest", role=Role.OPERATOR).status == 403


def test_our_operator_reaches_the_actor_through_a_web_config_too(
    start: Any, config: Callable[[str], Path], tls: Callable[[str], str]
) -> None:
    site = start(web_config=config(tls(MTLS)))
    assert site.ask("/api/v1/manifest", role=Role.OPERATOR).json["type"] == "actor-off"
    assert site.ask("/api/v1/manifest", role=Role.SCRAPE).status == 403


def test_certificates_of_another_authority_read_and_never_act(
    start: Any, config: Callable[[str], Path], tls: Callable[[str], str], stranger: Any
) -> None:
    text = tls(MTLS)
    path = config(text)
    (path.parent / "ca.pem").write_bytes(stranger.file.read_bytes())
    site = start(web_config=path)
    # The other authority can write our names, too.
    for given in (
        stranger.leaf(uris=["urn:somebody"], file="plain"),
        stranger.leaf(Role.OPERATOR, "false"),
    ):
        files = TLSFiles(cert=given.cert, key=given.key, ca=site.authority.file)
        assert site.ask("/metrics", files=files).status == 200
        assert site.ask("/api/v1/manifest", files=files).status == 403


def test_names_of_clients_can_be_limited(
    start: Any, config: Callable[[str], Path], tls: Callable[[str], str]
) -> None:
    allowed = spiffe_uri("0123456789abcdef", Role.SCRAPE, "asker")
    site = start(web_config=config(tls(f"{MTLS}\nclient_allowed_sans: ['{allowed}']")))
    assert site.ask("/metrics", role=Role.SCRAPE).status == 200
    assert site.ask("/metrics", role=Role.NODE).status == 403


def test_a_certificate_may_be_optional(
    start: Any, config: Callable[[str], Path], tls: Callable[[str], str]
) -> None:
    more = MTLS.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
    site = start(web_config=config(tls(more)))
    assert site.ask("/metrics", role=None).status == 200
    assert site.ask("/api/v1/manifest", role=None).status == 403
    assert site.ask("/api/v1/manifest", role=Role.OPERATOR).status == 503


def test_tls_versions_and_suites_are_as_told(
    start: Any, config: Callable[[str], Path], tls: Callable[[str], str]
) -> None:
    more = "max_version: TLS12\ncipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]"
    site = start(web_config=config(tls(more)))
    context = ssl.create_default_context(cafile=site.authority.file)
    import socket

    with (
        socket.create_connection(("127.0.0.1", site.port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        assert sock.version() == "TLSv1.2"
        assert (sock.cipher() or ("",))[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


def test_headers_are_added(start: Any, config: Callable[[str], Path]) -> None:
    site = start(web_config=config("http_server_config: {headers: {X-Frame-Options: deny}}"))
    assert site.ask("/-/healthy", role=None, plain=True).headers["X-Frame-Options"] == "deny"


def test_a_change_is_followed_and_a_slip_keeps_what_was(
    start: Any, config: Callable[[str], Path]
) -> None:
    path = config(f"basic_auth_users: {{alice: '{HASH}'}}")
    site = start(web_config=path)

    def ask(user: str) -> tuple[int, str]:
        answer = site.ask("/metrics", role=None, plain=True, headers=basic(user, "secret"))
        return answer.status, answer.text

    assert ask("alice")[0] == 200
    _write(path, f"basic_auth_users: {{bob: '{HASH}'}}")
    assert (ask("alice")[0], ask("bob")[0]) == (401, 200)
    _write(path, "basic_auth_users: {bob: oops}")
    status, text = ask("bob")
    assert status == 200
    assert "narthex_config_last_reload_successful 0" in text
    path.unlink()
    assert ask("mallory")[0] == 401
    _write(path, f"basic_auth_users: {{bob: '{HASH}'}}")
    assert "narthex_config_last_reload_successful 1" in ask("bob")[1]


def _write(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def test_requests_can_be_slowed(start: Any, config: Callable[[str], Path]) -> None:
    site = start(web_config=config("rate_limit: {interval: 1h, burst: 2}"))
    found = [site.ask("/-/healthy", role=None, plain=True).status for _ in range(3)]
    assert found == [200, 200, 429]


def test_a_bucket_fills_again() -> None:
    now = [0.0]
    bucket = Bucket(clock=lambda: now[0])
    limit = RateLimit(interval=2.0, burst=1)
    assert bucket.take(limit)
    assert not bucket.take(limit)
    now[0] = 2.5
    assert bucket.take(limit)


def test_a_right_password_is_remembered_and_a_changed_hash_forgets_it() -> None:
    passwords = Passwords()
    assert passwords.right({"a": HASH}, "a", "secret")
    other = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
    assert not passwords.right({"a": other}, "a", "secret")
    assert not passwords.right({}, "a", "secret")


def test_without_certificate_or_web_config_nothing_listens(start: Any, state: Path) -> None:
    (state / "pki" / "node.pem").unlink()
    with pytest.raises(NarthexError, match="no certificate") as caught:
        start()
    assert "narthex join" in caught.value.hint


def test_a_spoilt_node_file_is_told(start: Any, state: Path) -> None:
    (state / "node.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"node\.json"):
        start()
