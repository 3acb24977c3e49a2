"""The ``narthex`` command: finds its subcommands in the installed entry points."""

import importlib
import platform
import sys
from typing import Any, Final

import click

from narthex_exporter import __version__
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.overriding import override

GROUP: Final = "narthex.commands"
# The commands of this package, which are there wherever this one is.
_OWN: Final = {
    "actor": ("narthex_exporter.actor.commands", "actor"),
    "exporter": ("narthex_exporter.commands", "exporter"),
    "join": ("narthex_exporter.join", "join"),
    "probe": ("narthex_exporter.commands", "probe"),
    "renew": ("narthex_exporter.join", "renew_command"),
}
# What click's context holds where the process is the command's own.
PROGRAM: Final = object()


class Commands(click.Group):
    """A group whose members are loaded when they are used: a node carries no operator code."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the subcommands that are installed."""
        from importlib import metadata  # noqa: PLC0415 - as in get_command

        del ctx
        return sorted(point.name for point in metadata.entry_points(group=GROUP))

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one subcommand."""
        del ctx
        if cmd_name in _OWN:
            module, name = _OWN[cmd_name]
            own: click.Command = getattr(importlib.import_module(module), name)
            return own
        # To look through all that is installed takes as long as to start the exporter.
        from importlib import metadata  # noqa: PLC0415

        for point in metadata.entry_points(group=GROUP, name=cmd_name):
            try:
                loaded: click.Command = point.load()
            except ModuleNotFoundError as error:
                return _missing(cmd_name, error.name or "")
            return loaded
        return None

    @override
    def invoke(self, ctx: click.Context) -> Any:
        """Run a subcommand; a known error is told in words, never as a traceback."""
        try:
            return super().invoke(ctx)
        except NarthexError as error:
            for line in error.told():
                click.echo(line, err=True)
            sys.exit(1)


def _missing(name: str, module: str) -> click.Command:
    def tell() -> None:
        raise NarthexError(
            f"`narthex {name}` needs the Python module {module}, which is not installed",
            hint="run script/up, or: pip install 'narthex[operator]'",
        )

    return click.Command(name, callback=tell, help="(not installed)", hidden=True)


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value and not ctx.resilient_parsing:
        click.echo(f"narthex, version {__version__}")
        click.echo(f"  python version:   {platform.python_version()}")
        click.echo(f"  platform:         {platform.system().lower()}/{platform.machine()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print version and platform.",
)
def main() -> None:
    """Watch servers and act on them."""


def program() -> None:
    """Run the command as a program of its own, which may become another: see serving."""
    main(prog_name="narthex", obj=PROGRAM)
