"""Ask an operator's API with a token: no proxy, no password and no CA from the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from narthex_exporter.contract.errors import NarthexError

URL_VARIABLE: Final = "NARTHEX_URL"
TOKEN_VARIABLE: Final = "NARTHEX_TOKEN"  # noqa: S105 - a variable's name
_PREFIX: Final = "/api/v1"
_CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 90.0
_SHOWN: Final = 2000


class ApiError(NarthexError):
    """The operator refuses, or does not answer; ``status`` is 0 where it does not."""

    def __init__(self, message: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """An operator, and whoever asks it."""

    url: str
    token: str = field(repr=False)
    ca: str | None = None
    session: requests.Session = field(default_factory=requests.Session, repr=False)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        seconds: float = READ_SECONDS,
    ) -> Any:
        """Make one request and give its JSON. Raises ApiError."""
        self.session.trust_env = False
        try:
            reply = self.session.request(
                method,
                self.url + _PREFIX + path,
                json=body,
                params=dict(query or {}),
                headers={"Authorization": f"Bearer {self.token}"},
                verify=self.ca or True,
                timeout=(_CONNECT_SECONDS, seconds),
                allow_redirects=False,
            )
            data = reply.json() if reply.content else None
        except requests.exceptions.SSLError as error:
            raise ApiError(
                f"the operator at {self.url} does not prove who it is",
                hint="name the CA's certificate with --ca: pki/ca.pem in the operator's folder",
            ) from error
        except (requests.RequestException, OSError, ValueError) as error:
            raise ApiError(
                f"the operator at {self.url} does not answer as one: {type(error).__name__}",
                hint=f"is {URL_VARIABLE} its URL, and does it run?",
            ) from error
        if not reply.ok or reply.is_redirect:
            raise _refusal(reply.status_code, data)
        return data


def make_api(url: str | None, ca: str | None, environment: Mapping[str, str] = os.environ) -> Api:
    """Make the client that options and environment tell of. Raises ApiError."""
    url = (url or environment.get(URL_VARIABLE, "")).rstrip("/")
    token = environment.get(TOKEN_VARIABLE, "")
    if not url or not token:
        missing = (
            "--url, or the variable NARTHEX_URL," if not url else "The variable NARTHEX_TOKEN"
        )
        raise ApiError(
            f"{missing} must be set",
            hint="an administrator makes a token with: narthex token create NAME --role operator",
        )
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query:
        raise ApiError(f"{url} is no operator's URL", hint="it begins with https://")
    if ca is not None and not os.access(ca, os.R_OK):
        raise ApiError(f"{ca} cannot be read", hint="--ca names a certificate in PEM")
    return Api(url=url, token=token, ca=ca)


def _refusal(status: int, data: Any) -> ApiError:
    problem = data if isinstance(data, dict) else {}
    message = str(problem.get("detail") or problem.get("title") or f"status {status}")
    errors = problem.get("errors")
    for one in errors if isinstance(errors, list) else ():
        if isinstance(one, dict) and str(one.get("message")) not in message:
            message += f"\n  {one.get('path')}: {one.get('message')}"
    return ApiError(message[:_SHOWN], hint=str(problem.get("hint", ""))[:_SHOWN], status=status)
