"""``narthex up``, ``down``, ``status`` and ``doctor``."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import click

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.logfmt import set_up
from narthex_operator.local.doctor import diagnose
from narthex_operator.local.home import Home, Ports, holder
from narthex_operator.local.processes import InterruptedStartError
from narthex_operator.local.runfile import RunFile, read_run_file
from narthex_operator.local.stack import Options, Stack, only_one

READY = "ready"


@click.command()
@click.option("--detach", is_flag=True, help="Return when all is ready; stop with `narthex down`.")
@click.option(
    "--nodes",
    type=click.IntRange(1, 50),
    default=1,
    show_default=True,
    help="How many nodes to run on this machine.",
)
@click.option(
    "--listen",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where panel and gateway listen, so that other machines can join.",
)
@click.option("--progress-fd", type=int, hidden=True)
def up(*, detach: bool, nodes: int, listen: str, progress_fd: int | None) -> None:
    """Start the whole product on this machine."""
    options = Options(
        home=Home.from_environment(), ports=Ports.from_environment(), nodes=nodes, listen=listen
    )
    if detach:
        _detach(options)
        return
    progress = os.fdopen(progress_fd, "w") if progress_fd is not None else None
    try:
        _run(options, progress)
    except NarthexError as error:
        if progress is None:
            raise
        _tell(progress, {"error": str(error), "hint": error.hint})
        sys.exit(1)


@click.command()
def down() -> None:
    """Stop what `narthex up` started."""
    home = Home.from_environment()
    pid = holder(home)
    if pid is None:
        home.run_file.unlink(missing_ok=True)  # left by a supervisor that was killed
        click.echo(f"nothing runs in {home.path}")
        return
    os.kill(pid, signal.SIGTERM)
    for _ in range(600):
        if holder(home) is None:
            click.echo("stopped")
            return
        time.sleep(0.1)
    raise NarthexError(
        f"the supervisor, pid {pid}, does not end", hint=f"see {home.log('supervisor')}"
    )


@click.command()
def status() -> None:
    """Show what runs, and where."""
    home = Home.from_environment()
    if holder(home) is None:
        raise NarthexError(f"nothing runs in {home.path}", hint="start it with script/up")
    run = read_run_file(home.run_file)
    try:
        restarts = json.loads(home.state_file.read_text())["restarts"]
    except (OSError, ValueError, KeyError):
        restarts = {}
    rows = [(name, pid) for name, pid in run.pids.model_dump().items()]
    for node in run.nodes:
        rows += [(f"exporter@{node.name}", node.pids.exporter)]
        rows += [(f"actor@{node.name}", node.pids.actor)]
    for name, pid in rows:
        state = f"running  pid {pid}" if pid else "not running"
        again = restarts.get(name, 0)
        click.echo(f"{name:<28} {state}{f'  restarted {again} times' if again else ''}")
    click.echo(f"\npanel         {run.panel.url}")
    click.echo(f"prometheus    {run.prometheus.url}")
    click.echo(f"alertmanager  {run.alertmanager.url}")
    click.echo(f"logs          {run.logs.url}")
    if not all(pid for _, pid in rows):
        sys.exit(1)


@click.command()
def doctor() -> None:
    """Check every part and say what to do about what is amiss."""
    findings = diagnose(Home.from_environment(), Ports.from_environment())
    for finding in findings:
        mark = "ok   " if finding.ok else "AMISS"
        click.echo(f"{mark} {finding.name}: {finding.detail}")
        if finding.hint and not finding.ok:
            click.echo(f"      what to do: {finding.hint}")
    if not all(finding.ok for finding in findings):
        sys.exit(1)


def _run(options: Options, progress: IO[str] | None) -> None:
    set_up(component="supervisor")
    os.umask(0o077)  # for every part: databases and logs are nobody else's
    stop = _on_signals()
    say = click.echo if progress is None else lambda text: _tell(progress, {"say": text})
    with only_one(options.home):
        stack = Stack(options=options, say=lambda text: say(f"  {text} …"), stopped=stop)
        try:
            stack.bring_up()
            if progress is None:
                click.echo(summary(stack))
            else:
                _tell(progress, {READY: summary(stack)})
                progress.close()
            stack.run()
        except InterruptedStartError as error:
            say(f"  {error}")
        finally:
            stack.stop()


def _on_signals() -> Callable[[], bool]:
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _frame: received.append(got))
    return lambda: bool(received)


def _detach(options: Options) -> None:
    options.home.create()
    reader, writer = os.pipe()
    log = options.home.log("supervisor")
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - argv is built by us
            [sys.executable, "-Im", "narthex_exporter", "up", "--progress-fd", str(writer),
             "--nodes", str(options.nodes), "--listen", options.listen],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            pass_fds=(writer,), start_new_session=True, cwd=Path.cwd(),
            env={**os.environ, "NARTHEX_HOME": str(options.home.path)},
        )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader) as lines:
        for line in lines:
            message = json.loads(line)
            if "error" in message:
                process.wait()
                raise NarthexError(message["error"], hint=message["hint"])
            click.echo(message.get(READY) or message["say"])
            if READY in message:
                # The supervisor goes on without us: it is not ours to wait for.
                process.returncode = 0
                return
    process.wait()
    raise NarthexError("the supervisor ended before all was ready", hint=f"see {log}")


def _tell(progress: IO[str], message: dict[str, str]) -> None:
    try:
        progress.write(json.dumps(message) + "\n")
        progress.flush()
    except OSError:
        return  # whoever waited has gone; the product runs all the same


def summary(stack: Stack) -> str:
    """Say what a person needs to know now."""
    home = stack.options.home
    run: RunFile = read_run_file(home.run_file)
    lines = [
        "",
        f"Narthex is up: {run.panel.url}",
        "",
        "  user          admin",
    ]
    if stack.first.admin_must_change and home.credentials.exists():
        password = json.loads(home.credentials.read_text())["password"]
        lines.append(f"  password      {password}   (to be changed at the first sign-in)")
    lines += [
        f"  certificate   signed by this installation's own CA: {run.panel.ca_file}",
        f"  Prometheus    {run.prometheus.url}",
        f"  Alertmanager  {run.alertmanager.url}",
        f"  nodes         {', '.join(node.name for node in run.nodes)}",
        "",
        "On this machine the actor is enabled, for safe, reversible and disruptive actions and",
        f"nothing that equals root: {stack.nodes[0].policy}",
        "On every other node it is off until its owner turns it on.",
        "",
        "Stop with Ctrl-C or script/down.",
    ]
    return "\n".join(lines)
