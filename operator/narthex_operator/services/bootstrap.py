"""Make an installation ready: schema, secrets, certificates, the first user and token."""

import ipaddress
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from sqlalchemy import select

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.durable import write_durably
from narthex_exporter.transport.identity import TRUST_ROOT
from narthex_exporter.transport.keys import (
    key_pem,
    load_key,
    make_csr,
    new_key,
)
from narthex_exporter.transport.tls import TLSFileError, check_private
from narthex_operator.config import OperatorConfig, split_address
from narthex_operator.db.engine import Database, open_database
from narthex_operator.db.models import ApiToken, User
from narthex_operator.security.passwords import Passwords
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import Role, local_actor
from narthex_operator.services.accounts import MAX_TOKEN_LIFETIME, AccountService
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.nodes import NodeService
from narthex_operator.signer.messages import RoleCertificateRequest

ADMIN: Final = "admin"
LOCAL_TOKEN: Final = "local"  # noqa: S105 - a token's name
_SECRETS: Final = ("pepper", "csrf.key", "sd.token", "webhook.token")
# The scripts' token is made anew when it has less than this to live.
_TOKEN_MARGIN: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """What was made just now and is told once: empty where it was there before."""

    admin_password: str = field(default="", repr=False)
    api_token: str = field(default="", repr=False)
    admin_must_change: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreServices:
    """The services that need no network: what ``open_services`` gives."""

    database: Database
    signer: SignerClient
    audit: AuditLedger
    accounts: AccountService
    nodes: NodeService

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def bootstrap(config: OperatorConfig) -> Bootstrap:
    """Make what is missing, change nothing that is there. Safe to run at every start."""
    make_secrets(config.secrets_dir)
    database = open_database(config.database_url)
    try:
        database.upgrade()
    finally:
        database.close()
    services = open_services(config)
    try:
        refresh_certificates(config)
        return _first_user_and_token(services)
    finally:
        services.close()


def open_services(config: OperatorConfig) -> CoreServices:
    """Open what the command line and the operator share. Raises NarthexError."""
    passwords = Passwords(read_secret(config.secrets_dir, "pepper").encode())
    nonce_key = read_secret(config.secrets_dir, "csrf.key").encode()
    database = open_database(config.database_url)
    signer = SignerClient(socket=config.signer_socket)
    audit = AuditLedger(database=database, signer=signer)
    return CoreServices(
        database=database,
        signer=signer,
        audit=audit,
        accounts=AccountService(database=database, audit=audit, passwords=passwords),
        nodes=NodeService(
            database=database,
            audit=audit,
            signer=signer,
            operator_url=config.web.external_url,
            gateway_url=config.gateway.external_url,
            nonce_key=nonce_key,
        ),
    )


def make_secrets(folder: Path) -> None:
    """Make the secret files that are missing."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _SECRETS:
        path = folder / name
        if not path.exists():
            write_durably(path, secrets.token_urlsafe(32).encode())


def read_secret(folder: Path, name: str) -> str:
    """Read a secret that only its owner can. Raises TLSFileError, NarthexError."""
    path = folder / name
    check_private(path)
    text = path.read_text(encoding="ascii").strip()
    if len(text) < 32:  # noqa: PLR2004 - 32 characters of base64 are 192 bits
        raise NarthexError(f"{path} is too short to be a secret", hint="restore it from a backup")
    return text


def refresh_certificates(config: OperatorConfig, *, now: datetime | None = None) -> bool:
    """Renew our own certificates that are past half of their life; tell whether any was.

    A job calls this every hour; servers and clients read their files anew.
    """
    now = now or datetime.now(tz=UTC)
    signer = SignerClient(socket=config.signer_socket)
    ca = signer.ca()
    config.pki_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    anchor = config.pki_dir / "ca.pem"
    if not anchor.exists():
        write_durably(anchor, ca.certificate.encode(), mode=0o644)
    elif anchor.read_text() != ca.certificate:
        raise NarthexError(
            f"{anchor} is not the signer's CA",
            hint="restore the signer's folder from a backup: every node trusts the old CA",
        )
    changed = False
    for cert, key, request in _wanted(config, ca.cluster):
        if _fresh(cert, key, request, now):
            continue
        made = new_key()
        asked = request.model_copy(update={"csr": make_csr(made)})
        pem = signer.role_certificate(asked)
        write_durably(key, key_pem(made))
        write_durably(cert, pem.encode(), mode=0o644)
        changed = True
    return changed


def _wanted(
    config: OperatorConfig, cluster: str
) -> list[tuple[Path, Path, RoleCertificateRequest]]:
    pki = config.pki_dir
    wanted = [
        (
            endpoint.cert_file,
            endpoint.key_file,
            RoleCertificateRequest(
                csr="-",
                role="server",
                id=name,
                addresses=_addresses(endpoint.listen, endpoint.external_url),
                names=(f"{name}.{cluster}.{TRUST_ROOT}",),
            ),
        )
        for name, endpoint in (("panel", config.web), ("gateway", config.gateway))
        # A certificate that lies elsewhere is somebody's own: we leave it alone.
        if endpoint.cert_file.parent == pki
    ]
    wanted.append(
        (pki / "operator.pem", pki / "operator.key",
         RoleCertificateRequest(csr="-", role="operator", id="main"))
    )  # fmt: skip
    wanted.append(
        (pki / "scrape.pem", pki / "scrape.key",
         RoleCertificateRequest(csr="-", role="scrape", id="prometheus"))
    )  # fmt: skip
    return wanted


def _addresses(listen: str, url: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    found = {ipaddress.ip_address("127.0.0.1")}
    for text in (split_address(listen)[0], urlsplit(url).hostname or ""):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue  # a name: nginx in front has its certificate
        if not address.is_unspecified:
            found.add(address)
    return tuple(sorted(found, key=str))


def _fresh(cert: Path, key: Path, request: RoleCertificateRequest, now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(cert.read_bytes())
        if load_key(key).public_key() != certificate.public_key():
            return False
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TLSFileError, x509.ExtensionNotFound):
        return False
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    covered = set(names.get_values_for_type(x509.IPAddress)) >= set(request.addresses)
    return covered and start <= now < start + (end - start) / 2


def _first_user_and_token(services: CoreServices) -> Bootstrap:
    actor = local_actor("bootstrap")
    now = datetime.now(tz=UTC)
    with services.database.reading() as session:
        anybody = session.scalar(select(User.id).limit(1)) is not None
        usable = session.scalar(
            select(ApiToken.id)
            .where(
                ApiToken.name == LOCAL_TOKEN,
                ApiToken.revoked_at.is_(None),
                ApiToken.expires_at > now + _TOKEN_MARGIN,
            )
            .limit(1)
        )
    password = token = ""
    if not anybody:
        password = services.accounts.add_user(actor, name=ADMIN, role=Role.ADMIN, password=None)
    if usable is None:
        token = services.accounts.create_token(
            actor, name=LOCAL_TOKEN, role=Role.ADMIN, lifetime=MAX_TOKEN_LIFETIME
        )
    with services.database.reading() as session:
        admin = session.scalar(select(User).where(User.name == ADMIN))
    return Bootstrap(
        admin_password=password,
        api_token=token,
        admin_must_change=admin is not None and admin.must_change_password,
    )
