"""The ``narthex actor`` command."""

import json
import uuid
from pathlib import Path

import click

from narthex_exporter import logfmt
from narthex_exporter.actor.policy import load_policy
from narthex_exporter.errors import ConfigError


@click.group(invoke_without_command=True)
@click.option(
    "--state.dir",
    "node_dir",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/narthex"),
    show_default=True,
    help="The node's folder: node.json, pki/ca.pem, tickets.json.",
)
@click.option(
    "--actor.state-dir",
    "state_dir",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/narthex-actor"),
    show_default=True,
    help="The actor's own folder: runs and audit. Mode 0700.",
)
@click.option(
    "--actor.socket",
    "socket",
    type=click.Path(path_type=Path),
    default=Path("/run/narthex/actor.sock"),
    show_default=True,
    help="The Unix socket that the exporter passes requests to.",
)
@click.option(
    "--policy.file",
    "policy_file",
    type=click.Path(path_type=Path),
    default=Path("/etc/narthex/policy.yaml"),
    show_default=True,
    help="What may be done here. Without it the actor does not start.",
)
@click.option(
    "--engine.docker-socket",
    "docker_socket",
    type=click.Path(path_type=Path),
    default=Path("/var/run/docker.sock"),
    show_default=True,
    help="Docker's Unix socket.",
)
@click.option(
    "--engine.podman-socket",
    "podman_socket",
    type=click.Path(path_type=Path),
    default=Path("/run/podman/podman.sock"),
    show_default=True,
    help="Podman's Unix socket.",
)
@click.option(
    "--protect-pid",
    "protected",
    type=click.IntRange(min=2),
    multiple=True,
    help="A process that no action may touch, its descendants neither. Repeatable.",
)
@click.option("--log.level", "level", type=click.Choice(logfmt.LEVELS), default="info")
@click.option("--log.format", "form", type=click.Choice(["logfmt", "json"]), default="logfmt")
@click.pass_context
def actor(
    context: click.Context,
    *,
    node_dir: Path,
    state_dir: Path,
    socket: Path,
    policy_file: Path,
    docker_socket: Path,
    podman_socket: Path,
    protected: tuple[int, ...],
    level: str,
    form: logfmt.Format,
) -> None:
    """Carry out queries and actions on this node, as its policy allows."""
    if context.invoked_subcommand in {"check-policy", "verify-audit"}:
        return
    # Loaded only by what needs it: checking a policy is a small program.
    from narthex_exporter.actor.node import Config  # noqa: PLC0415

    logfmt.set_up(level=level, form=form, component="actor")
    context.obj = config = Config(
        node_dir=node_dir,
        state_dir=state_dir,
        socket=socket,
        policy_file=policy_file,
        docker_socket=docker_socket,
        podman_socket=podman_socket,
        protected=protected,
    )
    if context.invoked_subcommand is None:
        # Flask is loaded only by the program, not by its jobs.
        from narthex_exporter.actor.app import serve  # noqa: PLC0415

        serve(config)


@actor.command("carry-out", hidden=True)
@click.argument("run_id", type=click.UUID)
@click.pass_context
def carry_out(context: click.Context, run_id: uuid.UUID) -> None:
    """Be the job of one accepted run; the actor starts this, nobody else needs to."""
    from narthex_exporter.actor import jobs  # noqa: PLC0415

    jobs.carry_out(context.obj, str(run_id))


@actor.command("revert", hidden=True)
@click.argument("run_id", type=click.UUID)
@click.option("--after", "after_seconds", type=click.FloatRange(min=0), default=0.0)
@click.pass_context
def revert(context: click.Context, run_id: uuid.UUID, *, after_seconds: float) -> None:
    """Bring back what a run changed, unless it was confirmed; a timer starts this."""
    from narthex_exporter.actor import jobs  # noqa: PLC0415

    jobs.bring_back(context.obj, str(run_id), after_seconds=after_seconds)


@actor.command("check-policy")
@click.option(
    "--json", "as_json", is_flag=True, help="For programs: all of it, and what is allowed."
)
@click.argument("file", type=click.Path(path_type=Path))
def check_policy(file: Path, *, as_json: bool) -> None:
    """Say in words what a policy file allows."""
    if as_json:
        policy = load_policy(file)
        click.echo(json.dumps({**policy.summary(), "actions": policy.allowed()}))
        return
    for line in load_policy(file).explain():
        click.echo(line)


@actor.command("verify-audit")
@click.argument("file", type=click.Path(path_type=Path))
def verify_audit(file: Path) -> None:
    """Check the chain of the audit record FILE (audit.jsonl in the actor's folder)."""
    from narthex_exporter.actor.audit import verify_all  # noqa: PLC0415

    if not file.exists():
        raise ConfigError(f"there is no {file}")
    head = verify_all(file)
    click.echo("the record is empty" if head is None else f"{head.seq} rows, head {head.hash}")
