"""What a node with supervisord answers."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tests.panel.world import NOW


def program(name: str, state: str, pid: int = 0, **more: Any) -> dict[str, Any]:
    since = (NOW - timedelta(days=2)).isoformat() if state == "RUNNING" else None
    return {
        "name": name, "state": state, "description": f"pid {pid}, uptime 2 days" if pid else "",
        "pid": pid, "since": since, "exit_status": None, "problem": "", **more,
    }  # fmt: skip


def answer(name: str, params: Mapping[str, Any], text: str, *, empty: bool) -> dict[str, Any]:
    """Answer a query of the family."""
    if name == "supervisor.tail":
        kind = "error" if params["errors"] else "line"
        lines = (f"{kind} {n}: took job {4000 + n} of the queue" for n in range(40))
        return {"text": text or "\n".join(lines)}
    programs = [
        program("shop:web_0", "RUNNING", 4242, description=text or "pid 4242, uptime 2 days"),
        program("shop:web_1", "RUNNING", 4243),
        program(text or "mailer:mailer", "FATAL", problem="can't find command '/srv/mailer'"),
        program("queue:queue", "BACKOFF", problem=text or "exited too quickly"),
        program("report:report", "EXITED", exit_status=3),
        program("migrate:migrate", "EXITED", exit_status=0),
        program("debug:debug", "STOPPED", exit_status=0),
    ]
    return {"programs": [] if empty else programs}
