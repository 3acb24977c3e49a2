"""Bind a node's audit rows to one another: both sides prove them the same way."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

GENESIS: Final = "0" * 64


def row_hash(row: Mapping[str, Any]) -> str:
    """Hash a row without its own hash; ``prev`` in it binds it to the one before."""
    body = {key: value for key, value in row.items() if key != "hash"}
    return hashlib.sha256(
        json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def follows(row: Mapping[str, Any], *, seq: int, head: str) -> bool:
    """Tell whether a row is the next after row ``seq`` with hash ``head``, and unchanged."""
    next_one = (row.get("seq"), row.get("prev")) == (seq + 1, head)
    return next_one and row.get("hash") == row_hash(row)
