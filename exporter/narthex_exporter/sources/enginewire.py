"""Speak to a container engine over its Unix socket, by the ``docker`` library."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from narthex_exporter.sources.containerparse import EngineError

if TYPE_CHECKING:
    from docker import APIClient

# So long an engine may take to answer what it answers at once where it is well.
ASK_SECONDS: Final = 4.5


class SaidError(EngineError):
    """The engine answered with an error: ``code`` is HTTP's."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class NoAnswerError(EngineError):
    """The engine could not be reached, or did not answer in time (``is_hung``)."""

    def __init__(self, message: str, *, is_hung: bool) -> None:
        super().__init__(message)
        self.is_hung = is_hung


def connect(path: Path, *, timeout_seconds: float = ASK_SECONDS) -> "APIClient":
    """Open a client of one engine, and agree on a version with it. Raises EngineError."""
    # Loaded here: it costs 11 MiB that a node without engines keeps.
    from docker import APIClient  # noqa: PLC0415

    with telling():
        client = APIClient(base_url=f"unix://{path}", timeout=timeout_seconds, version="auto")  # type: ignore[arg-type] # seconds may be a fraction
    # Proxies of the environment are not for a Unix socket.
    client.trust_env = False
    return client


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Turn what the library raises into EngineError, in the engine's own words."""
    import requests  # noqa: PLC0415
    import urllib3  # noqa: PLC0415
    from docker.errors import APIError, DockerException  # noqa: PLC0415

    try:
        yield
    except APIError as error:
        code = error.response.status_code if error.response is not None else 0
        said = error.explanation or str(error)
        if isinstance(said, bytes):
            said = said.decode("utf-8", "replace")
        raise SaidError(str(said).strip() or f"it answered {code}", code=code) from error
    except (
        DockerException,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
        ValueError,
    ) as error:
        why, is_hung = _words(error)
        raise NoAnswerError(why, is_hung=is_hung) from error


def judged(response: Any) -> Any:
    """Raise what the engine said where it said no, as ``telling`` understands it."""
    import requests  # noqa: PLC0415
    from docker.errors import create_api_error_from_http_exception  # noqa: PLC0415

    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        create_api_error_from_http_exception(error)
    return response


def cut(response: Any) -> None:
    """End the reading of an answer that another thread waits for."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        response.raw.shutdown()


def _words(error: Exception) -> tuple[str, bool]:
    """Say why there was no answer, and whether it was waited for in vain."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, TimeoutError) or "timed out" in str(inner).lower():
            return "it took too long", True
        if isinstance(inner, PermissionError):
            return "permission denied", False
        if isinstance(inner, OSError) and inner.strerror and inner.errno:
            return inner.strerror.lower(), False
        inner = inner.__cause__ or inner.__context__
    return str(error)[:300] or type(error).__name__, False
