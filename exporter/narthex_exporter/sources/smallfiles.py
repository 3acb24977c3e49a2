"""Read small configuration files, whole or not at all."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from narthex_exporter.errors import UnavailableError

_MOST_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallFiles:
    """The files of a machine at ``root``."""

    root: Path = Path("/")

    def read(self, path: str) -> str | None:
        """Read a text file; ``None`` where there is none. Raises UnavailableError."""
        try:
            # A pipe or a device must not be waited for.
            descriptor = os.open(self._at(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnavailableError(f"cannot read {path}: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnavailableError(f"{path} is not a regular file")
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise UnavailableError(f"{path} is longer than {_MOST_BYTES} bytes")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise UnavailableError(f"{path} is not UTF-8 text") from error

    def list(self, folder: str) -> Sequence[str]:
        """List a folder's names, sorted; empty where there is none. Raises UnavailableError."""
        try:
            return sorted(os.listdir(self._at(folder)))  # noqa: PTH208 - names are all we need
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise UnavailableError(f"cannot list {folder}: {error.strerror}") from error

    def _at(self, path: str) -> Path:
        return self.root / path.lstrip("/")
