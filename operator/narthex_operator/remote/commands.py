"""``narthex run`` and ``narthex query``: act on, and ask, many nodes through an operator."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

import click

from narthex_exporter.contract.wire import new_run_id
from narthex_operator.durations import Duration
from narthex_operator.remote.client import Api, ApiError, make_api
from narthex_operator.remote.words import names, plan_lines, result_lines

Command = TypeVar("Command", bound=Callable[..., Any])

_LOOK_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 60.0
_CANCELLED: Final = 130
_ENDS: Final = frozenset({"succeeded", "failed", "cancelled", "halted"})
_WAITING: Final = frozenset(
    {"waiting", "queued", "running", "confirming", "unknown", "unapproved"}
)


def _reaching(command: Command) -> Command:
    """Add the options that say which operator is asked."""
    url = click.option("--url", metavar="URL", help="The operator; by default $NARTHEX_URL.")
    ca = click.option(
        "--ca",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="The certificate of the CA that signed the operator's.",
    )
    return url(ca(command))


def _parameters(
    _ctx: click.Context, _param: click.Parameter, values: Sequence[str]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not separator or not name:
            raise click.BadParameter(f"{value!r} is not of the form name=value")
        if name in found:
            raise click.BadParameter(f"{name} is given more than once")
        found[name] = _typed(text)
    return found


def _typed(text: str) -> Any:
    """Read numbers, true, false, lists and objects as JSON has them; all else is text."""
    if text[:1] in {"[", "{"} or text in {"true", "false"} or text.lstrip("-").isdigit():
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


@click.command()
@click.argument("action")
@click.argument("params", nargs=-1, metavar="[NAME=VALUE]...", callback=_parameters)
@click.option(
    "--on",
    "selector",
    metavar="SELECTOR",
    help="""Which nodes: all, names
(web-1,web-2), groups (@web) or matchers (env="prod",role=~"web.*").""",
)
@click.option("--retry-failed", metavar="ID", help="The nodes that failed in this fleet run.")
@click.option("--canary", default=0, show_default=True, help="So many nodes first.")
@click.option("--batch", default="100%", show_default=True, help="Nodes a wave, or per cent.")
@click.option("--parallel", default=16, show_default=True, help="At most so many at once.")
@click.option("--stop-after", default=1, show_default=True, help="Stop when so many failed.")
@click.option("--pause", type=Duration(), default="0s", help="Wait between waves.")
@click.option(
    "--gate",
    default="",
    metavar="PROMQL",
    help="""What must hold between waves: it
gives a sample, and none is 0.""",
)
@click.option(
    "--gate-for",
    type=Duration(),
    default="60s",
    show_default=True,
    help="For how long it must hold.",
)
@click.option(
    "--gate-timeout",
    type=Duration(),
    default="10m",
    show_default=True,
    help="Halt where it has not by then.",
)
@click.option("--reason", default="", help="Why; it stands in the audit.")
@click.option(
    "--confirm",
    "confirmation",
    default="",
    metavar="TEXT",
    help="What must be typed before something is destroyed.",
)
@click.option("--leave-out-refused", is_flag=True, help="Go on without nodes that refuse.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@_reaching
def run(
    *,
    action: str,
    params: dict[str, Any],
    selector: str | None,
    retry_failed: str | None,
    reason: str,
    confirmation: str,
    leave_out_refused: bool,
    yes: bool,
    as_json: bool,
    url: str | None,
    ca: str | None,
    **strategy: Any,
) -> None:
    """Run an action on many nodes: show the plan, ask, go wave by wave.

    Ends with 0 only where every node succeeded. Ctrl-C offers to cancel what is under way.
    """
    api = make_api(url, ca)
    plan = _planned(api, action, params, selector, retry_failed)
    for line in plan_lines(plan):
        click.echo(line, err=as_json)
    if plan["refusals"] and plan["members"] and not leave_out_refused and not yes:
        refused = [name for one in plan["refusals"] for name in one["nodes"]]
        click.confirm(f"\nGo on without {names(refused)}?", abort=True, err=True)
        leave_out_refused = True
    if not yes and plan["members"]:
        reason = _consent(plan, reason)
        if plan["phrase"] and not confirmation:
            confirmation = click.prompt(f"Type {plan['phrase']!r} to go on", err=True)
    body = {
        "plan": plan["digest"],
        "strategy": _strategy(strategy),
        "reason": reason,
        "confirmation": confirmation,
        "leave_out_refused": leave_out_refused,
        # A lost reply must not start it twice.
        "fleet_run_id": new_run_id(),
    }
    found = api.call("POST", "/fleet-runs", body)
    done = _followed(api, found["id"])
    if as_json:
        click.echo(json.dumps(done, indent=2))
    else:
        for line in result_lines(done):
            click.echo(line)
    sys.exit(0 if done["state"] == "succeeded" else 1)


@click.command()
@click.argument("query")
@click.argument("params", nargs=-1, metavar="[NAME=VALUE]...", callback=_parameters)
@click.option("--on", "selector", required=True, metavar="SELECTOR", help="Which nodes.")
@click.option("--json", "as_json", is_flag=True, help="Print the answers as JSON, by node.")
@_reaching
def query(
    *,
    query: str,
    params: dict[str, Any],
    selector: str,
    as_json: bool,
    url: str | None,
    ca: str | None,
) -> None:
    """Ask many nodes the same, and lay equal answers together.

    Ends with 0 only where every node answered.
    """
    api = make_api(url, ca)
    nodes = api.call("GET", "/targets", query={"on": selector})["items"]
    found = api.call("POST", f"/queries/{query}", {"nodes": nodes, "params": params})
    answers: list[tuple[str, Any, str]] = [
        (node, group["result"], "") for group in found["groups"] for node in group["nodes"]
    ]
    answers += [(one["node_name"], None, one["error"]) for one in found["failures"]]
    if as_json:
        click.echo(json.dumps({
            node: {"error": error} if error else {"result": result}
            for node, result, error in answers
        }, indent=2))  # fmt: skip
    else:
        for line in _grouped(answers):
            click.echo(line)
    sys.exit(1 if any(error for _, _, error in answers) else 0)


def _planned(
    api: Api, action: str, params: dict[str, Any], selector: str | None, retry: str | None
) -> Any:
    if (selector is None) == (retry is None):
        raise click.UsageError("say which nodes: --on SELECTOR, or --retry-failed ID")
    if retry is None:
        return api.call(
            "POST", "/fleet-runs/plans", {"action": action, "params": params, "on": selector}
        )
    plan = api.call("POST", f"/fleet-runs/{retry}/retry-failed", {})
    if plan["action"] != action or (params and plan["params"] != params):
        raise click.UsageError(f"fleet run {retry} was {plan['action']} with {plan['params']}")
    return plan


def _consent(plan: Any, reason: str) -> str:
    if plan["confirm"] == "none":
        return reason
    nodes = f"{plan['members']} node{'s' if plan['members'] != 1 else ''}"
    click.confirm(f"\n{plan['title']} on {nodes}?", abort=True, err=True)
    if plan["confirm"] in {"reason", "typed"} and not reason.strip():
        reason = click.prompt("Reason", err=True)
    return reason


def _strategy(options: dict[str, Any]) -> dict[str, Any]:
    waits: dict[str, timedelta] = {
        "pause_seconds": options.pop("pause"),
        "gate_for_seconds": options.pop("gate_for"),
        "gate_timeout_seconds": options.pop("gate_timeout"),
    }
    return {**options, **{name: wait.total_seconds() for name, wait in waits.items()}}


def _followed(api: Api, fleet_run_id: str) -> Any:
    """Show progress until it is over or halted; Ctrl-C offers to cancel it, then to leave it."""
    asked = False
    with _progress(api, fleet_run_id) as look:
        while True:
            try:
                found = look()
                if found["state"] in _ENDS:
                    return found
                time.sleep(_LOOK_SECONDS)
            except KeyboardInterrupt:
                if asked:
                    click.echo(f"\nfleet run {fleet_run_id} goes on without you", err=True)
                    sys.exit(_CANCELLED)
                asked = True
                if click.confirm("\nCancel the fleet run?", default=False, err=True):
                    api.call("DELETE", f"/fleet-runs/{fleet_run_id}")


@contextmanager
def _progress(api: Api, fleet_run_id: str) -> Iterator[Callable[[], Any]]:
    first = api.call("GET", f"/fleet-runs/{fleet_run_id}")
    total = sum(count for state, count in first["counts"].items() if state != "left_out")
    heard = time.monotonic()
    with click.progressbar(
        length=total, label="nodes", file=sys.stderr, show_eta=False,
        item_show_func=lambda text: text,
    ) as bar:  # fmt: skip

        def look() -> Any:
            nonlocal heard
            try:
                found = api.call("GET", f"/fleet-runs/{fleet_run_id}", seconds=10)
            except ApiError as error:
                # The operator may just be restarting: it goes on with the fleet run itself.
                if error.status or time.monotonic() - heard > _PATIENCE_SECONDS:
                    raise
                bar.update(0, "the operator does not answer, waiting")
                return {"state": "unknown"}
            heard = time.monotonic()
            states = [m["state"] for m in found["members"] if m["state"] != "left_out"]
            over = sum(state not in _WAITING for state in states)
            failed = sum(state not in _WAITING | {"succeeded"} for state in states)
            wave = f"wave {found['wave'] + 1}/{found['waves']} {found['state']}"
            bar.update(over - bar.pos, f"{wave}{f', {failed} failed' if failed else ''}")
            return found

        yield look


def _grouped(answers: Sequence[tuple[str, Any, str]]) -> Iterator[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for node, result, error in answers:
        text = "" if error else json.dumps(result, indent=2, sort_keys=True)
        groups.setdefault((text, error), []).append(node)
    for (text, error), nodes in sorted(groups.items(), key=lambda one: -len(one[1])):
        yield f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}: {names(nodes)}"
        yield from (f"    {line}" for line in (error or text).split("\n"))
