"""Make text that came from anywhere safe to store and to send."""

import os
import re
import stat
from pathlib import Path
from typing import Final

# Controls but tab, and what re-orders, hides or breaks text on a screen.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


def clean(raw: bytes | str, *, limit: int) -> str:
    """Decode one line as UTF-8, show what is unsafe as U+FFFD, keep ``limit`` characters."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    text = text[:limit].encode("utf-8", "replace").decode("utf-8")
    return _UNSAFE.sub("\ufffd", text)


def clean_block(raw: bytes) -> str:
    """Decode several lines as UTF-8, showing what is unsafe in each as U+FFFD."""
    text = raw.decode("utf-8", "replace")
    return "\n".join(clean(line, limit=len(line)) for line in text.split("\n"))


def small_file(path: str | Path, *, most_bytes: int = 65536, follow: bool = True) -> str | None:
    """Read the beginning of a file that others may write; None where it is no regular file.

    A pipe is not waited for; with ``follow`` False a link is not followed.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return os.read(fd, most_bytes).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)
