"""Let in to read whom the web configuration file says, as exporter-toolkit does."""

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from narthex_exporter.transport.server import CERTIFICATE
from narthex_exporter.web import Reply, text
from narthex_exporter.webconfig import Bucket, Passwords, WebConfig, names_of

Environ = dict[str, Any]


@dataclass(slots=True)
class WebGate:
    """The file's rules, as they are at each request."""

    config: Callable[[], WebConfig]
    _passwords: Passwords = field(default_factory=Passwords, init=False)
    _bucket: Bucket = field(default_factory=Bucket, init=False)

    def headers(self) -> Iterable[tuple[str, str]]:
        """Give what each reply carries."""
        return self.config().http_server_config.headers.items()

    def refusal(self, environ: Environ) -> Reply | None:
        """Refuse a request that comes too soon, with a wrong certificate or a wrong password."""
        config = self.config()
        if not self._bucket.take(config.rate_limit):
            return text(429, "too many requests; rate_limit in the web configuration says so")
        tls = config.tls_server_config
        if tls is not None and tls.client_allowed_sans:
            certificate = environ[CERTIFICATE]
            names = names_of(certificate) if certificate else frozenset()
            if names.isdisjoint(tls.client_allowed_sans):
                return text(403, "this certificate carries none of the allowed names")
        if config.basic_auth_users and not self._password_right(environ, config):
            return Reply(
                status=401,
                body=b"unauthorized\n",
                headers=(
                    ("Content-Type", "text/plain; charset=utf-8"),
                    ("WWW-Authenticate", "Basic"),
                ),
            )
        return None

    def _password_right(self, environ: Environ, config: WebConfig) -> bool:
        scheme, _, value = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            decoded = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
        user, _, password = decoded.partition(":")
        return self._passwords.right(config.basic_auth_users, user, password)
