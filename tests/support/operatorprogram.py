"""A whole operator as a program that can be killed; asked to, it kills itself at one point.

``python operatorprogram.py CONFIG.json [POINT RUN]``: SIGKILL comes when the run RUN reaches
POINT, so that nothing is flushed, closed or told.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from narthex_operator.app import running
from narthex_operator.clients.node import NodeClient
from narthex_operator.config import OperatorConfig
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.delivery import Delivery
from narthex_operator.services.runs import RunService

# Each point: whose method, its name, and whether it dies before or after it.
POINTS: dict[str, tuple[type[Any], str, bool]] = {
    "write.before": (RunService, "_write", True),
    "write.after": (RunService, "_write", False),
    "requested.before-commit": (AuditLedger, "record", False),
    "send.begin": (Delivery, "_send", True),
    "ticket.before": (SignerClient, "tickets", True),
    "ticket.after": (SignerClient, "tickets", False),
    "sent.before": (Delivery, "_mark_sent", True),
    "sent.after": (Delivery, "_mark_sent", False),
    "reply.after": (NodeClient, "run", False),
    "copy.before": (Delivery, "_copy", True),
    "copy.after": (Delivery, "_copy", False),
    "send.end": (Delivery, "_send", False),
}


def die_at(point: str, run: str) -> None:
    """Have the process killed when a run reaches a point."""
    owner, name, before = POINTS[point]
    method: Callable[..., Any] = getattr(owner, name)

    def dying(*args: Any, **more: Any) -> Any:
        concerned = run in repr((args[1:], more)) or any(
            run in {getattr(one, "op", ""), getattr(one, "id", "")} for one in args[1:]
        )
        if concerned and before:
            os.kill(os.getpid(), signal.SIGKILL)
        found = method(*args, **more)
        if concerned:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, dying)


def main() -> None:
    """Serve until killed."""
    config = OperatorConfig.model_validate_json(Path(sys.argv[1]).read_text())
    if len(sys.argv) > 2:
        die_at(*sys.argv[2:4])
    with running(config):
        threading.Event().wait()


if __name__ == "__main__":
    main()
