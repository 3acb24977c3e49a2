"""Serve the panel's own files: under a name that changes with them, compressed once."""

import gzip
import hashlib
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from flask import Response, request

from narthex_operator.errors import NotFoundError
from narthex_operator.services.access import PUBLIC, requires

STATIC: Final = Path(__file__).parent / "static"
_YEAR_SECONDS: Final = 31_536_000
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_SERVED: Final = frozenset({".css", ".js", ".svg", ".png", ".webmanifest"})


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    packed: bytes
    type: str


@dataclass(slots=True)
class Assets:
    """The files below ``static/``, read at the start: no path of a request reaches the disk."""

    root: Path = STATIC
    _files: dict[str, _File] = field(default_factory=dict)
    version: str = ""

    def __post_init__(self) -> None:
        digest = hashlib.sha256()
        for path in sorted(self.root.rglob("*")):
            if path.suffix not in _SERVED:
                continue
            name = path.relative_to(self.root).as_posix()
            body = path.read_bytes()
            digest.update(name.encode() + b"\0" + body)
            kind = _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or ""
            self._files[name] = _File(body, gzip.compress(body, 9, mtime=0), kind)
        self.version = digest.hexdigest()[:12]

    def url(self, name: str) -> str:
        """Give the address of a file. Raises KeyError for one that is not there."""
        if name not in self._files:
            raise KeyError(name)
        return f"/static/panel/{self.version}/{name}"

    def serve(self, version: str, name: str) -> Response:
        """Answer with a file, which a browser may keep for good when the version is ours."""
        found = self._files.get(name)
        if found is None:
            raise NotFoundError(f"there is no file {name!r}")
        packed = request.accept_encodings.quality("gzip") > 0
        response = Response(found.packed if packed else found.body, content_type=found.type)
        if packed:
            response.headers["Content-Encoding"] = "gzip"
        response.headers["Vary"] = "Accept-Encoding"
        fresh = version == self.version
        response.headers["Cache-Control"] = (
            f"public, max-age={_YEAR_SECONDS}, immutable" if fresh else "no-cache"
        )
        return response

    def view(self) -> Callable[[str, str], Response]:
        """Make the view that serves the files to everybody."""

        @requires(PUBLIC)
        def static(version: str, name: str) -> Response:
            return self.serve(version, name)

        return static
