"""Check every part of an installation and say what to do about what is amiss."""

import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.transport.tls import TLSFiles
from narthex_operator.local.checks import LEAST_FREE_BYTES, check_ports, check_room, find_binaries
from narthex_operator.local.home import Home, Ports, holder
from narthex_operator.local.probes import Probe
from narthex_operator.local.runfile import RunFile, read_run_file

SKEW_SECONDS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at. ``hint`` says what to do when it is not ``ok``."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


def diagnose(home: Home, ports: Ports) -> list[Finding]:
    """Look at everything that can be looked at, running or not."""
    found = [*_programs(), *_room(home)]
    if holder(home) is None and home.run_file.exists():
        detail = f"the supervisor was killed; {home.run_file} tells of processes that are gone"
        found.append(Finding(name="running", ok=False, detail=detail, hint="run script/up"))
        return [*found, *_ports_free(ports)]
    try:
        run = read_run_file(home.run_file)
    except NarthexError as error:
        found.append(Finding(name="running", ok=False, detail=str(error), hint=error.hint))
        return [*found, *_ports_free(ports)]
    found += [*_services(run), *_nodes(run), *_files(run)]
    return [*found, *_certificates(home), *_permissions(home)]


def _programs() -> Iterator[Finding]:
    try:
        binaries = find_binaries()
        yield Finding(name="programs", ok=True, detail=f"{binaries.prometheus} and others")
    except NarthexError as error:
        yield Finding(name="programs", ok=False, detail=str(error), hint=error.hint)


def _room(home: Home) -> Iterator[Finding]:
    try:
        check_room(home.path if home.path.exists() else home.path.parent)
        yield Finding(name="disk", ok=True, detail=f"over {LEAST_FREE_BYTES >> 20} MiB free")
    except (NarthexError, OSError) as error:
        yield Finding(name="disk", ok=False, detail=str(error), hint=getattr(error, "hint", ""))


def _ports_free(ports: Ports) -> Iterator[Finding]:
    wanted = {
        "exporter": ports.exporter(0),
        "operator": ports.operator,
        "log store": ports.logstore,
        "Prometheus": ports.prometheus,
        "Alertmanager": ports.alertmanager,
        "gateway": ports.gateway,
    }
    for name, port in wanted.items():
        try:
            check_ports("127.0.0.1", [(name, port)])
            yield Finding(name=f"port {port}", ok=True, detail=f"free for the {name}")
        except NarthexError as error:
            yield Finding(name=f"port {port}", ok=False, detail=str(error), hint=error.hint)


def _port(url: str) -> int:
    return int(url.rpartition(":")[2].rstrip("/"))


def _services(run: RunFile) -> Iterator[Finding]:
    panel = Probe(port=_port(run.panel.url), ca=Path(run.panel.ca_file))
    looked_at = (
        ("operator", panel, "/-/ready", run.panel.url),
        ("Prometheus", Probe(port=_port(run.prometheus.url)), "/-/ready", run.prometheus.url),
        (
            "Alertmanager",
            Probe(port=_port(run.alertmanager.url)),
            "/-/ready",
            run.alertmanager.url,
        ),
        ("log store", Probe(port=_port(run.logs.url)), "/ready", run.logs.url),
    )
    for name, probe, path, url in looked_at:
        amiss = probe.amiss(path)
        yield Finding(
            name=name,
            ok=not amiss,
            detail=amiss or f"answers at {url}",
            hint="see `narthex status` and its log; script/down and script/up start it anew",
        )


def _nodes(run: RunFile) -> Iterator[Finding]:
    for node in run.nodes:
        probe = Probe(
            port=_port(node.url),
            client=TLSFiles(
                cert=Path(run.scrape.cert_file),
                key=Path(run.scrape.key_file),
                ca=Path(run.scrape.ca_file),
            ),
        )
        amiss = probe.amiss("/-/ready")
        yield Finding(
            name=f"node {node.name}",
            ok=not amiss,
            detail=amiss or f"its exporter answers at {node.url}",
            hint="see the exporter's log; it renews its certificate when the operator runs",
        )
        if not amiss:
            yield _clock(node.name, probe)


def _clock(name: str, probe: Probe) -> Finding:
    before = time.time()
    try:
        text = probe.get("/metrics?collect[]=time").decode(errors="replace")
        lines = (line for line in text.splitlines() if line.startswith("node_time_seconds"))
        theirs = float(next(lines).split()[1])
    except (NarthexError, StopIteration, ValueError, IndexError) as error:
        return Finding(name=f"clock of {name}", ok=False, detail=f"cannot be read: {error}")
    skew = abs(theirs - before)
    return Finding(
        name=f"clock of {name}",
        ok=skew < SKEW_SECONDS,
        detail=f"differs by {skew:.1f} s",
        hint="synchronise both clocks, for instance with chrony: tickets live 60 s",
    )


def _certificates(home: Home) -> Iterator[Finding]:
    now = datetime.now(tz=UTC)
    for path in sorted([*home.pki.glob("*.pem"), *home.path.glob("nodes/*/pki/node.pem")]):
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            yield Finding(name=f"certificate {path.name}", ok=False, detail=f"{path}: {error}")
            continue
        left = certificate.not_valid_after_utc - now
        yield Finding(
            name=f"certificate {path.relative_to(home.path)}",
            ok=left > timedelta(),
            detail=f"valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            hint="script/down and script/up renew it",
        )


def _files(run: RunFile) -> Iterator[Finding]:
    named = (
        run.panel.ca_file,
        run.panel.credentials_file,
        run.api_token_file,
        run.scrape.ca_file,
        run.scrape.cert_file,
        run.scrape.key_file,
        run.operator_client.cert_file,
        run.operator_client.key_file,
    )
    missing = [name for name in named if not Path(name).is_file()]
    yield Finding(
        name="files of run.json",
        ok=not missing,
        detail=f"missing: {', '.join(missing)}" if missing else "all are there",
        hint="script/down and script/up make them anew",
    )


def _permissions(home: Home) -> Iterator[Finding]:
    for path in sorted([home.path, *home.path.glob("**/*.key"), *home.path.glob("secrets/*")]):
        mode = path.stat().st_mode
        open_to_others = mode & (stat.S_IRWXG | stat.S_IRWXO)
        if open_to_others:
            yield Finding(
                name=f"permissions of {path.name}",
                ok=False,
                detail=f"{path} is open to others (mode {stat.S_IMODE(mode):04o})",
                hint=f"run: chmod go-rwx {path}",
            )
            return
    yield Finding(name="permissions", ok=True, detail="keys and secrets are closed to others")
