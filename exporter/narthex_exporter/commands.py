"""The ``narthex exporter`` command."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click
import yaml

from narthex_exporter import __version__, logfmt
from narthex_exporter.cli import PROGRAM
from narthex_exporter.collectors import COLLECTORS, MODULES
from narthex_exporter.collectors.spec import Option, Switch, Words
from narthex_exporter.config import Config, LogShipping
from narthex_exporter.errors import ConfigError, UnavailableError
from narthex_exporter.overriding import override
from narthex_exporter.serving import Start, relaunch, serve, settings_of

_PATH: Final = click.Path(path_type=Path)
_DEFAULT_PORT: Final = 19100
_MAX_PORT: Final = 65535


class Address(click.ParamType[tuple[str, int]]):
    """``host:port``, ``:port`` for every IPv4 address, ``[::1]:port``."""

    name = "address"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Split an address. Fails in words."""
        host, colon, port = str(value).rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not port.isdigit() or int(port) > _MAX_PORT or (":" in host) != bracketed:
            self.fail(f"{value!r} is not host:port, :port or [IPv6]:port", param, ctx)
        return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - asked for by ":port"


def read_config_file(context: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Take a YAML file's values as the flags' defaults. Raises ConfigError."""
    del param
    if value is None:
        return
    try:
        data = yaml.safe_load(value.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {value}: {error}") from error
    if data is None:
        return
    if not isinstance(data, dict):
        raise ConfigError(f"{value} must hold names and values, as the flags are called")
    names = {
        flag.removeprefix("--"): param.name
        for param in context.command.params
        for flag in param.opts
        if flag not in {"--config.file", "--help"}
    }
    if unknown := [str(key) for key in data if key not in names]:
        raise ConfigError(
            f"{value}: there is no setting {unknown[0]!r}",
            hint="settings are named as the flags are: narthex exporter --help",
        )
    context.default_map = {
        **(context.default_map or {}),
        **{names[key]: each for key, each in data.items()},
    }


def collector_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Add the flags that collectors declare."""
    for collector in reversed(COLLECTORS):
        for option in reversed(collector.options):
            flag = option.flag(collector.name)
            if isinstance(option, Switch):
                flag += f"/--no-{flag.removeprefix('--')}"
            command = click.option(
                flag,
                setting_name(collector.name, option),
                default=None,
                multiple=isinstance(option, Words),
                show_default=option.default,
                help=option.help,
            )(command)
        command = click.option(
            f"--collector.{collector.name}/--no-collector.{collector.name}",
            f"collector_{collector.name}",
            default=None,
            help=f"{collector.summary} [default: {'on' if collector.enabled else 'off'}]",
        )(command)
    return command


def node_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Add the flags that say where the node is, what is looked at, and how that is logged."""
    for option in reversed(_NODE_FLAGS):
        command = option(command)
    return command


_NODE_FLAGS: Final = (
    click.option("--path.procfs", "procfs", type=_PATH, default=Path("/proc"), show_default=True),
    click.option("--path.sysfs", "sysfs", type=_PATH, default=Path("/sys"), show_default=True),
    click.option("--path.rootfs", "rootfs", type=_PATH, default=Path("/"), show_default=True),
    click.option(
        "--path.udev.data",
        "udev",
        type=_PATH,
        default=Path("/run/udev/data"),
        show_default=True,
    ),
    click.option(
        "--probe.dir",
        "probes",
        type=_PATH,
        default=Path("/run/narthex-probe"),
        show_default=True,
        help="Where `narthex probe` leaves what only root may see.",
    ),
    click.option(
        "--collector.disable-defaults",
        "disable_defaults",
        is_flag=True,
        help="Turn off every collector that is not named.",
    ),
    click.option("--log.level", "level", type=click.Choice(logfmt.LEVELS), default="info"),
    click.option("--log.format", "form", type=click.Choice(["logfmt", "json"]), default="logfmt"),
)


def setting_name(collector: str, option: Option[Any]) -> str:
    """Name an option's parameter."""
    return f"setting_{collector}_{re.sub('[-.]', '_', option.name)}"


@click.command()
@click.option(
    "--config.file",
    type=_PATH,
    expose_value=False,
    is_eager=True,
    callback=read_config_file,
    help="YAML with settings named as these flags; flags win.",
)
@click.option(
    "--web.listen-address",
    "listen",
    type=Address(),
    multiple=True,
    default=(f"127.0.0.1:{_DEFAULT_PORT}",),
    show_default=True,
    help="Where to listen. Repeatable; `:19100` is every IPv4 address.",
)
@click.option("--web.config.file", "web_config", type=_PATH, help="exporter-toolkit's TLS file.")
@click.option("--web.telemetry-path", "telemetry_path", default="/metrics", show_default=True)
@click.option(
    "--web.max-requests",
    "max_requests",
    type=click.IntRange(min=0),
    default=40,
    show_default=True,
    help="Scrapes at a time; 0 is no limit.",
)
@click.option(
    "--web.disable-exporter-metrics",
    "no_exporter_metrics",
    is_flag=True,
    help="Leave out process_*.",
)
@click.option(
    "--state.dir",
    "state_dir",
    type=_PATH,
    default=Path("/var/lib/narthex"),
    show_default=True,
    help="The node's folder: node.json, pki, the queue of logs.",
)
@click.option(
    "--actor.socket",
    "actor_socket",
    type=_PATH,
    default=Path("/run/narthex/actor.sock"),
    show_default=True,
    help="The Unix socket that /api is handed on to.",
)
@click.option("--logs.push-url", "push_url", default="", help="Where logs go; none: nowhere.")
@click.option("--logs.config.file", "logs_config", type=_PATH, help="Which logs to read.")
@click.option("--no-logs", "no_logs", is_flag=True, help="Ship no logs.")
@node_flags
@collector_flags
def exporter(**given: Any) -> None:
    """Report this node's metrics, ship its logs, pass requests to the actor."""
    if not given["telemetry_path"].startswith("/") or given["telemetry_path"] == "/":
        raise ConfigError("--web.telemetry-path must be a path such as /metrics")
    logs = LogShipping(
        push_url="" if given["no_logs"] else given["push_url"], file=given["logs_config"]
    )
    config = Config(
        listen=given["listen"],
        web_config=given["web_config"],
        telemetry_path=given["telemetry_path"],
        max_requests=given["max_requests"],
        exporter_metrics=not given["no_exporter_metrics"],
        state_dir=given["state_dir"],
        actor_socket=given["actor_socket"],
        logs=logs,
        version=__version__,
        **_node_config(given),
    )
    start = Start(
        config=config,
        settings=_settings(given),
        log_level=given["level"],
        log_format=given["form"],
    )
    (relaunch if click.get_current_context().obj is PROGRAM else serve)(start)


def _node_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Give those parts of a Config that `node_flags` and `collector_flags` set."""
    names = ("procfs", "sysfs", "rootfs", "udev", "probes", "disable_defaults")
    return {
        **{name: given[name] for name in names},
        "collectors": _chosen(given),
        "modules": _modules(given),
    }


@click.command()
@click.option(
    "--config.file",
    type=_PATH,
    expose_value=False,
    is_eager=True,
    callback=read_config_file,
    help="YAML with settings named as these flags; flags win.",
)
@click.option("--all", "everything", is_flag=True, help="Look also where the last look is fresh.")
@node_flags
@collector_flags
def probe(**given: Any) -> None:
    """Look once, as root, at what the exporter may not see, and leave it for it to tell.

    Started by narthex-probe.timer; the exporter needs it only where it is not root itself.
    """
    # Loaded only by the program, as serving does.
    from narthex_exporter import probe as work  # noqa: PLC0415

    logfmt.set_up(level=given["level"], form=given["form"], component="probe")
    config = Config(**_node_config(given))
    failed = work.probe(
        config, settings_of(_settings(given), config), everything=given["everything"]
    )
    if failed:
        raise UnavailableError(
            f"these could not be looked at: {', '.join(failed)}", hint="the log says why"
        )


def _modules(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the modules of the collectors that will be on: the others need not be loaded."""
    chosen = _chosen(given)
    return tuple(
        module
        for module, each in zip(MODULES, COLLECTORS, strict=True)
        if chosen.get(each.name, each.enabled and not given["disable_defaults"])
    )


def _chosen(given: Mapping[str, Any]) -> dict[str, bool]:
    chosen = {each.name: given[f"collector_{each.name}"] for each in COLLECTORS}
    return {name: on for name, on in chosen.items() if on is not None}


def _settings(given: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    return {
        (collector.name, option.name): _text(given[setting_name(collector.name, option)])
        for collector in COLLECTORS
        for option in collector.options
        if given[setting_name(collector.name, option)] not in {None, ()}
    }


def _text(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)
