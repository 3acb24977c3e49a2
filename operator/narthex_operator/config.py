"""Read the operator's configuration file, strictly."""

import ipaddress
import json
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.spec import Danger

# Tickets carry no more.
MOST_APPROVALS: Final = 5


class ConfigError(NarthexError):
    """The configuration file is missing or wrong; the message names file and key."""


def _http_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment:
        raise ValueError("must be a URL such as http://127.0.0.1:9090")
    return text.rstrip("/")


def _address(text: str) -> str:
    split_address(text)
    return text


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Address = Annotated[str, AfterValidator(_address)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class EndpointConfig(_Section):
    """One TLS listener: where it listens, how it is reached, with which certificate."""

    listen: Address
    external_url: HttpUrl
    cert_file: Path
    key_file: Path


class WebConfig(EndpointConfig):
    """Panel and API. ``trusted_hosts`` are accepted Host names besides the external URL's."""

    trusted_hosts: tuple[str, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every Host name that requests may carry."""
        return (urlsplit(self.external_url).hostname or "", *self.trusted_hosts)


class OperatorConfig(_Section):
    """Everything that an operator is told from outside. URLs carry no trailing slash.

    ``require_approvals`` says by danger how many other people must approve a run, besides what
    the node's own policy wants (``{destructive: 1}``). ``ssh_port`` is where nodes take SSH
    connections: what could cut a node off is kept only if that still works, where it did before.
    """

    home: Path
    database_url: str = Field(repr=False)
    web: WebConfig
    gateway: EndpointConfig
    signer_socket: Path
    secrets_dir: Path
    pki_dir: Path
    prometheus_url: HttpUrl
    prometheus_config_dir: Path | None = None
    alertmanager_url: HttpUrl
    logs_url: HttpUrl
    grafana_url: HttpUrl | None = None
    scrape_interval_seconds: int = Field(default=15, ge=1, le=300)
    require_approvals: dict[Danger, Annotated[int, Field(ge=1, le=MOST_APPROVALS)]] = Field(
        default_factory=dict
    )
    ssh_port: int = Field(default=22, ge=1, le=65_535)


def load_operator_config(path: Path) -> OperatorConfig:
    """Read a YAML file. Raises ConfigError that names the file and each wrong key."""
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {error.strerror}",
            hint="name it with --config.file, or set NARTHEX_HOME to where script/up keeps it",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        # JSON's strict mode takes paths from strings and still refuses "19101" for a number.
        return OperatorConfig.model_validate_json(json.dumps(values))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is wrong: {_explain(error)}", hint="correct it, then start again"
        ) from error


def split_address(text: str) -> tuple[str, int]:
    """Split ``IP:port`` (``[IP]:port`` for IPv6). Raises ValueError."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") != (":" in host):
        raise ValueError("an IPv6 address needs brackets: [::1]:19100")
    address = ipaddress.ip_address(host.strip("[]"))
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:  # noqa: PLR2004
        raise ValueError("must be an IP address and a port, such as 192.0.2.7:19100")
    return str(address), int(port)


def _explain(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    problems = (
        f"{'.'.join(map(str, detail['loc'])) or 'the file'}: "
        + ("unknown key" if detail["type"] == "extra_forbidden" else detail["msg"])
        for detail in error.errors(include_url=False, include_input=False)
    )
    return "; ".join(problems)
