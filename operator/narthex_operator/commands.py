"""``narthex operator``, ``signer``, ``node``, ``user``, ``token`` and ``audit``."""

import getpass
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.logfmt import LEVELS, Format, set_up
from narthex_exporter.signals import Signals
from narthex_exporter.transport.server import Listener, Server
from narthex_operator.clients.node import NodeClient, operator_files
from narthex_operator.config import OperatorConfig, load_operator_config
from narthex_operator.durations import Duration
from narthex_operator.errors import OperatorError
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import Actor, Role, local_actor
from narthex_operator.services.bootstrap import CoreServices, open_services
from narthex_operator.services.witness import Witness
from narthex_operator.signer.app import LIMITS, SignerApp
from narthex_operator.signer.keystore import open_key_store
from narthex_operator.signer.ledger import Ledger
from narthex_operator.signer.peers import listen_for

Command = TypeVar("Command", bound=Callable[..., Any])

_ROLES: Final = tuple(role.value for role in Role)


def _config_option(command: Command) -> Command:
    return click.option(
        "--config.file",
        "config_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The operator's configuration; by default $NARTHEX_HOME/operator.yaml.",
    )(command)


def _log_options(command: Command) -> Command:
    level = click.option(
        "--log.level", "log_level", type=click.Choice(LEVELS), default="info", show_default=True
    )
    form = click.option(
        "--log.format",
        "log_format",
        type=click.Choice(["logfmt", "json"]),
        default="logfmt",
        show_default=True,
    )
    return level(form(command))


@click.group(invoke_without_command=True)
@_config_option
@_log_options
@click.pass_context
def operator(
    ctx: click.Context, config_file: Path | None, log_level: str, log_format: Format
) -> None:
    """Run the operator: accounts, nodes, runs, API and panel."""
    if ctx.invoked_subcommand is not None:
        return
    set_up(level=log_level, form=log_format, component="operator")
    config = _load(config_file)
    # Loaded here alone: the other commands need no web application.
    from narthex_operator.app import serve  # noqa: PLC0415

    serve(config)


@click.group(invoke_without_command=True)
@click.option(
    "--state.dir",
    "state_dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where its keys and its audit are; made at the first start, closed to others.",
)
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    help="The Unix socket to listen on.",
)
@click.option(
    "--allow-uid", multiple=True, type=int, help="Another user who may ask, by uid; repeatable."
)
@click.option("--init", is_flag=True, help="Make the keys where there are none, then end.")
@_log_options
@click.pass_context
def signer(
    ctx: click.Context,
    *,
    state_dir: Path | None,
    socket_path: Path | None,
    allow_uid: tuple[int, ...],
    init: bool,
    log_level: str,
    log_format: Format,
) -> None:
    """Run the signer: the only holder of the CA key and the ticket keys."""
    if ctx.invoked_subcommand is not None:
        return
    if state_dir is None or socket_path is None:
        missing = "--state.dir" if state_dir is None else "--socket"
        raise click.UsageError(f"Missing option '{missing}'.")
    set_up(level=log_level, form=log_format, component="signer")
    store = open_key_store(state_dir)
    try:
        if init:
            click.echo(f"cluster  {store.cluster}\nca pin   {store.pin}")
            return
        ledger = Ledger(state_dir / "audit.jsonl")
        sock = listen_for(socket_path, uids=frozenset(allow_uid))
        app = SignerApp(store=store, ledger=ledger)
        with Server(app=app, listeners=[Listener(sock=sock)], limits=LIMITS):
            _wait_for_signal()
        socket_path.unlink(missing_ok=True)
        ledger.close()
    finally:
        store.close()


@signer.command("rotate")
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    help="The running signer's socket; by default as in the operator's configuration.",
)
@click.option("--force", is_flag=True, help="Also where nodes may not know the next key yet.")
@_config_option
def signer_rotate(socket_path: Path | None, config_file: Path | None, *, force: bool) -> None:
    """Let the next ticket key sign from now on, and publish a new next one.

    Nodes know the next key already, so no request is lost; those that have been down since it
    was published learn it when they are up again. Only root and the signer's own user may.
    """
    done = SignerClient(socket=socket_path or _load(config_file).signer_socket).rotate(force=force)
    click.echo(f"rotated to version {done.version}: {done.current} signs, {done.next} is next")
    click.echo(f"tickets by {done.retired} are refused as soon as nodes fetch the new keys")


@click.group()
def node() -> None:
    """Add, list, approve and remove nodes."""


@node.command("add")
@click.argument("name")
@click.option(
    "--address",
    required=True,
    metavar="IP:PORT",
    help="Where operator and Prometheus will reach the node's exporter.",
)
@click.option("--ttl", type=Duration(), default="30m", show_default=True, help="At most 60m.")
@_config_option
def node_add(name: str, address: str, ttl: timedelta, config_file: Path | None) -> None:
    """Make a one-time token and print the line to paste on the new node."""
    with _services(config_file) as (services, actor):
        join = services.nodes.add(actor, name=name, address=address, lifetime=ttl)
    click.echo(f"On {name}, in a copy of the repository, until {join.expires_at:%H:%M} UTC:\n")
    click.echo(f"  {join.command}\n")
    click.echo("Then compare the six words that it prints with those of")
    click.echo(f"  narthex node list\nand allow actions with\n  narthex node approve {name}")


@node.command("list")
@_config_option
def node_list(config_file: Path | None) -> None:
    """List nodes with their state and the six words of their keys."""
    with _services(config_file) as (services, actor):
        for found in services.nodes.list(actor):
            state = "approved" if found.state == "up" else found.state
            click.echo(f"{found.name:<24} {state:<9} {found.address:<22} {found.fingerprint}")


@node.command("approve")
@click.argument("name")
@_config_option
def node_approve(name: str, config_file: Path | None) -> None:
    """Let actions reach a node, once its six words are the same here and there."""
    with _services(config_file) as (services, actor):
        found = services.nodes.approve(actor, name)
    click.echo(f"approved {found.name}: {found.fingerprint}")


@node.command("remove")
@click.argument("name")
@_config_option
def node_remove(name: str, config_file: Path | None) -> None:
    """Refuse a node's certificate and stop its scrape; its history stays."""
    with _services(config_file) as (services, actor):
        found = services.nodes.remove(actor, name)
    click.echo(f"removed {found.name}")


@node.command("label")
@click.argument("name")
@click.argument("labels", nargs=-1, metavar="[LABEL=VALUE | LABEL-]...")
@click.option("--group", help="Put it into this group; into none when empty.")
@_config_option
def node_label(
    name: str, labels: tuple[str, ...], group: str | None, config_file: Path | None
) -> None:
    """Set labels (env=prod), take them away (env-), and show what a node has."""
    with _services(config_file) as (services, actor):
        found = services.nodes.get(actor, name)
        if labels or group is not None:
            wanted = _relabelled(found.labels, labels)
            found = services.nodes.label(actor, name, labels=wanted, group=group)
    shown = " ".join(f"{label}={value}" for label, value in sorted(found.labels.items()))
    click.echo(f"{found.name:<24} group={found.group or '-'} {shown}")


def _relabelled(present: Mapping[str, str], changes: tuple[str, ...]) -> dict[str, str]:
    labels = dict(present)
    for change in changes:
        label, separator, value = change.partition("=")
        if separator:
            labels[label] = value
        elif change.endswith("-"):
            labels.pop(change[:-1], None)
        else:
            raise click.UsageError(f"{change!r} is neither LABEL=VALUE nor LABEL-")
    return labels


@click.group()
def user() -> None:
    """Add users, give them new first passwords, unlock and list them."""


@user.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(_ROLES), default=_ROLES[-1], show_default=True)
@_config_option
def user_add(name: str, role: str, config_file: Path | None) -> None:
    """Add a user and print a first password, to be changed at the first sign-in."""
    with _services(config_file) as (services, actor):
        password = services.accounts.add_user(actor, name=name, role=role, password=None)
    click.echo(f"user      {name}\npassword  {password}")


@user.command("passwd")
@click.argument("name")
@_config_option
def user_passwd(name: str, config_file: Path | None) -> None:
    """Print a new first password; the user's sessions end."""
    with _services(config_file) as (services, actor):
        password = services.accounts.reset_password(actor, name=name)
    click.echo(f"user      {name}\npassword  {password}")


@user.command("unlock")
@click.argument("name")
@_config_option
def user_unlock(name: str, config_file: Path | None) -> None:
    """Forget a user's failed sign-ins."""
    with _services(config_file) as (services, actor):
        services.accounts.unlock(actor, name=name)
    click.echo(f"unlocked {name}")


@user.command("list")
@_config_option
def user_list(config_file: Path | None) -> None:
    """List users."""
    with _services(config_file) as (services, actor):
        for found in services.accounts.users(actor):
            seen = found.last_sign_in_at
            when = f"{seen:%Y-%m-%d %H:%M} UTC" if seen else "never signed in"
            click.echo(f"{found.name:<24} {found.role:<9} {when}")


@click.group()
def token() -> None:
    """Make API tokens."""


@token.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice(_ROLES), default=_ROLES[-1], show_default=True)
@click.option("--ttl", type=Duration(), default="30d", show_default=True, help="At most 90d.")
@_config_option
def token_create(name: str, role: str, ttl: timedelta, config_file: Path | None) -> None:
    """Make an API token and print it, this once."""
    with _services(config_file) as (services, actor):
        click.echo(services.accounts.create_token(actor, name=name, role=role, lifetime=ttl))


@click.group()
def audit() -> None:
    """Prove the operator's ledger and the nodes' own audits."""


@audit.command("verify")
@_config_option
@click.pass_context
def audit_verify(ctx: click.Context, config_file: Path | None) -> None:
    """Prove the whole ledger, its checkpoints, and every node's audit against it.

    Ends with 1 where anything contradicts. A node that does not answer is named, and is no
    contradiction; rows that a node no longer has, because its files rotate, are none either.
    """
    config = _load(config_file)
    with _services(config_file) as (services, _):
        told = [*_ledger_report(services), *_node_reports(services, config)]
    for line, wrong in told:
        click.echo(line, err=wrong)
    if any(wrong for _, wrong in told):
        ctx.exit(1)


@audit.command("accept")
@click.argument("node_name", metavar="NODE")
@click.option("--reason", required=True, help="What was found; it goes into the ledger.")
@_config_option
def audit_accept(node_name: str, reason: str, config_file: Path | None) -> None:
    """Settle what stands against a node's audit, once it has been looked into."""
    config = _load(config_file)
    with _services(config_file) as (services, actor):
        count = _witness(services, config).accept(actor, node_name, reason=reason)
    click.echo(f"settled for {node_name}: {count}")


def _ledger_report(services: CoreServices) -> Iterator[tuple[str, bool]]:
    found = services.audit.verify()
    if found.intact:
        yield f"ledger: {found.up_to} rows, intact, head {found.head[:16]}", False
    else:
        yield f"ledger: {found.problem}; rows up to {found.up_to} are proven", True


def _node_reports(services: CoreServices, config: OperatorConfig) -> Iterator[tuple[str, bool]]:
    witness = _witness(services, config)
    for found in witness.present():
        try:
            walk = witness.check(found)
        except OperatorError as error:
            yield f"{found.name}: not asked: {error}", False
            continue
        gone = f" (rows before {walk.first} are gone by rotation)" if walk.first > 1 else ""
        problems = witness.problems(found)
        for kind, detail in problems:
            yield f"{found.name}: {kind}: {detail}", True
        if not problems:
            yield f"{found.name}: {walk.rows} rows, intact{gone}", False


def _witness(services: CoreServices, config: OperatorConfig) -> Witness:
    client = NodeClient(
        cluster=services.signer.ca().cluster,
        tls=operator_files(config.pki_dir),
        signer=services.signer,
        audit_head=services.audit.head,
    )
    return Witness(database=services.database, audit=services.audit, nodes=client)


@contextmanager
def _services(config_file: Path | None) -> Iterator[tuple[CoreServices, Actor]]:
    services = open_services(_load(config_file))
    try:
        yield services, local_actor(getpass.getuser())
    finally:
        services.close()


def _load(config_file: Path | None) -> OperatorConfig:
    path = config_file or Path(os.environ.get("NARTHEX_HOME") or "var") / "operator.yaml"
    if not path.exists():
        raise NarthexError(
            f"there is no configuration {path.absolute()}",
            hint="start the product with script/up, or name it with --config.file",
        )
    return load_operator_config(path)


def _wait_for_signal() -> None:
    with Signals((signal.SIGINT, signal.SIGTERM)) as signals:
        signals.wait()
