"""Make this machine a node of an operator's, and keep its certificate fresh."""

import base64
import http.client
import json
import logging
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ValidationError

from narthex_exporter.contract.enrolment import (
    CA_PATH,
    CERTIFICATES_PATH,
    NONCE_PATH,
    RENEWALS_PATH,
    EnrolmentReply,
    EnrolmentRequest,
    JoinToken,
    NonceReply,
    RenewalRequest,
    ca_pin,
    enrolment_mac,
    renewal_bytes,
    secret_digest,
)
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.fingerprint import six_words
from narthex_exporter.contract.ticketkeys import KEYS_PATH, KeysError, read_keys
from narthex_exporter.contract.wire import Problem
from narthex_exporter.durable import sync_folder, write_durably
from narthex_exporter.transport.keys import (
    key_pem,
    load_key,
    make_csr,
    new_key,
    public_key_info,
)
from narthex_exporter.transport.tls import TLSFiles, client_context, verifying_context

log = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 600.0
FIRST_RETRY_SECONDS: Final = 5.0
_SKEW_SECONDS: Final = 120.0
_MAX_REPLY: Final = 256 * 1024

Reply = TypeVar("Reply", bound=BaseModel)


class JoinError(NarthexError):
    """The machine cannot join, or cannot renew; nothing that worked before is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A node's files. The next key waits in ``*.next`` until its certificate is here.

    So a lost reply costs nothing: the same request is made again, and a crash between two
    renames is finished by ``repair``.
    """

    folder: Path

    @property
    def pki(self) -> Path:
        """Where keys and certificates are."""
        return self.folder / "pki"

    @property
    def identity(self) -> Path:
        """Who this node is."""
        return self.folder / "node.json"

    def create(self) -> None:
        """Make the folders, closed to others. Raises JoinError."""
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            self.pki.mkdir(mode=0o700, exist_ok=True)
            self.pki.chmod(0o700)
        except OSError as error:
            raise JoinError(
                f"cannot write to {self.folder}: {error.strerror}",
                hint="choose a folder of yours with --state.dir",
            ) from error

    def next_request(self, *, fresh: bool) -> str:
        """Give the CSR for the next certificate, made with its key when there is none."""
        key_file, csr_file = self.pki / "node.key.next", self.pki / "node.csr.next"
        if not fresh and key_file.exists() and csr_file.exists():
            return csr_file.read_text()
        key = new_key()
        text = make_csr(key)
        write_durably(key_file, key_pem(key))
        write_durably(csr_file, text.encode())
        return text

    def keep_keys(self, data: bytes, *, cluster: str) -> int | None:
        """Keep a document of ticket keys; give its version where it is another than is here.

        Raises JoinError for one that this node's CA did not sign, or that is older.
        """
        path = self.folder / "tickets.json"
        try:
            ca = x509.load_pem_x509_certificate((self.pki / "ca.pem").read_bytes())
            fresh = read_keys(data, ca=ca, cluster=cluster)
            old = path.read_bytes() if path.exists() else b""
        except (OSError, ValueError) as error:
            raise JoinError(f"cannot read the CA or the keys: {error}") from error
        except KeysError as error:
            raise JoinError(
                f"the operator's ticket keys are not to be used: {error}",
                hint="nothing was changed; are operator and signer of one installation?",
            ) from error
        try:
            present = read_keys(old, ca=ca, cluster=cluster)
        except KeysError:
            present = None  # none yet, damaged, or of an earlier operator
        if present is not None and fresh.version < present.version:
            raise JoinError(
                f"the operator's ticket keys (version {fresh.version}) are older than those"
                f" here (version {present.version})",
                hint="was the signer's folder restored from an old backup?",
            )
        # Each signature over the same document is another: it has a random part.
        if (
            present is not None
            and present.model_copy(update={"signature": fresh.signature}) == fresh
        ):
            return None
        write_durably(path, data, mode=0o644)
        return fresh.version

    def accept(self, reply: EnrolmentReply, *, operator_url: str) -> None:
        """Put a new certificate, its key and what came with it in place. Raises JoinError."""
        try:
            self.keep_keys(_json(reply.tickets), cluster=reply.cluster)
        except JoinError as error:
            # A certificate is not to be lost over it: the keys are fetched each hour anyway.
            if not (self.folder / "tickets.json").exists():
                raise
            log.warning("keys.not-kept", extra={"error": str(error)})
        write_durably(self.pki / "node.pem.next", reply.certificate.encode(), mode=0o644)
        self.repair()
        (self.pki / "node.csr.next").unlink(missing_ok=True)
        about = {
            "id": reply.id,
            "name": reply.name,
            "cluster": reply.cluster,
            "operator_url": operator_url,
            "gateway_url": reply.gateway_url,
            "generation": reply.generation,
        }
        write_durably(self.identity, _json(about), mode=0o644)

    def repair(self) -> None:
        """Finish what a crash interrupted between two renames."""
        certificate = self.pki / "node.pem.next"
        if not certificate.exists():
            return
        wanted = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
        for name in ("node.key.next", "node.key"):
            path = self.pki / name
            if path.exists() and load_key(path).public_key() == wanted:
                path.replace(self.pki / "node.key")
                certificate.replace(self.pki / "node.pem")
                sync_folder(self.pki)
                return
        certificate.unlink()

    def certificate(self) -> x509.Certificate:
        """Read the present certificate. Raises JoinError."""
        path = self.pki / "node.pem"
        try:
            return x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            raise JoinError(f"cannot read {path}: {error}", hint="join again: --force") from error

    def about(self) -> dict[str, Any]:
        """Read who this node is. Raises JoinError."""
        try:
            found: dict[str, Any] = json.loads(self.identity.read_bytes())
        except (OSError, ValueError) as error:
            raise JoinError(
                f"cannot read {self.identity}: {error}", hint="join again: --force"
            ) from error
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """The operator's enrolment endpoints, asked directly: no proxy, no CA of the system's."""

    url: str
    context: ssl.SSLContext

    def get(self, path: str, kind: type[Reply]) -> Reply:
        """Fetch a message. Raises JoinError."""
        return self._parsed(self.call("GET", path), kind)

    def post(self, path: str, message: BaseModel, kind: type[Reply]) -> Reply:
        """Send a message, get one. Raises JoinError with the operator's own words."""
        return self._parsed(self.call("POST", path, message.model_dump_json().encode()), kind)

    def call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Make one request. Raises JoinError."""
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname:
            raise JoinError(f"{self.url!r} is no operator's address: it begins with https://")
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=TIMEOUT_SECONDS, context=self.context
        )
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            data = reply.read(_MAX_REPLY)
        except ssl.SSLCertVerificationError as error:
            raise JoinError(
                f"{self.url} shows a certificate that is not the operator's: "
                f"{error.verify_message}",
                hint="use the address that the operator's own line names",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise JoinError(
                f"the operator does not answer at {self.url}: {error}",
                hint="is it running, does it listen on that address, is a firewall between?",
            ) from error
        finally:
            connection.close()
        if reply.status != http.HTTPStatus.OK:
            raise _told(reply.status, data)
        return data

    @staticmethod
    def _parsed(data: bytes, kind: type[Reply]) -> Reply:
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            raise JoinError("the operator's answer is not one of this protocol") from error


def trust(url: str, pin: str, state: State) -> Operator:
    """Fetch the operator's CA, and trust it only if its hash is the one that was given.

    The first connection verifies nobody, and says nothing: no token, no name, no key.
    """
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.minimum_version = ssl.TLSVersion.TLSv1_2
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    pem = Operator(url=url, context=blind).call("GET", CA_PATH)
    try:
        found = ca_pin(public_key_info(x509.load_pem_x509_certificate(pem)))
    except ValueError as error:
        raise JoinError(f"{url} does not show a CA: is it an operator?") from error
    if found != pin:
        raise JoinError(
            f"the CA at {url} does not match the pin: it is {found}, not {pin}",
            hint="somebody may be in between: copy the line anew from the operator, and if it"
            " still differs do not join over this network",
        )
    path = state.pki / "ca.pem"
    write_durably(path, pem, mode=0o644)
    return Operator(url=url, context=verifying_context(path))


def enrol(operator: Operator, token: JoinToken, state: State) -> str:
    """Get the first certificate; returns the key's six words. Raises JoinError."""
    nonce = _nonce(operator)
    # Asked again with the same key, a token whose answer got lost is not burnt.
    csr = state.next_request(fresh=False)
    message = EnrolmentRequest(
        node=token.node,
        csr=csr,
        nonce=nonce,
        mac=enrolment_mac(
            digest=secret_digest(token.secret), node=token.node, csr=csr, nonce=nonce
        ),
    )
    reply = operator.post(CERTIFICATES_PATH, message, EnrolmentReply)
    state.accept(reply, operator_url=operator.url)
    return six_words(public_key_info(state.certificate()))


def renew(state: State) -> None:
    """Get the next certificate with the present key's signature. Raises JoinError."""
    about = state.about()
    operator = Operator(
        url=str(about["operator_url"]), context=verifying_context(state.pki / "ca.pem")
    )
    nonce = _nonce(operator)
    csr = state.next_request(fresh=False)
    key = load_key(state.pki / "node.key")
    signature = key.sign(
        renewal_bytes(node=str(about["id"]), csr=csr, nonce=nonce), ec.ECDSA(hashes.SHA256())
    )
    message = RenewalRequest(
        certificate=(state.pki / "node.pem").read_text(),
        csr=csr,
        nonce=nonce,
        signature=base64.urlsafe_b64encode(signature).rstrip(b"=").decode(),
    )
    reply = operator.post(RENEWALS_PATH, message, EnrolmentReply)
    state.accept(reply, operator_url=operator.url)


def fetch_keys(state: State) -> int | None:
    """Get the present ticket keys from the operator's gateway, with this node's certificate.

    Gives their version where they are new here. Raises JoinError.
    """
    about = state.about()
    pki = state.pki
    files = TLSFiles(cert=pki / "node.pem", key=pki / "node.key", ca=pki / "ca.pem")
    gateway = Operator(url=str(about["gateway_url"]), context=client_context(files))
    return state.keep_keys(gateway.call("GET", KEYS_PATH), cluster=str(about["cluster"]))


def repair(state_dir: Path) -> None:
    """Finish an interrupted renewal before anything reads the files; never raises."""
    try:
        State(folder=state_dir).repair()
    except (OSError, ValueError, NarthexError) as error:
        log.warning("renewal.unrepaired", extra={"error": str(error)})


@click.command(name="renew")
@click.option(
    "--state.dir",
    "state_dir",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/narthex"),
    show_default=True,
    help="The node's folder.",
)
@click.option(
    "--keys", is_flag=True, help="Only fetch the ticket keys; the exporter does it every hour."
)
def renew_command(state_dir: Path, *, keys: bool) -> None:
    """Get this node's next certificate now; the exporter does it by itself at half of the life."""
    state = State(folder=state_dir)
    if keys:
        version = fetch_keys(state)
        click.echo("the ticket keys are as they were" if version is None else f"version {version}")
        return
    renew(state)
    click.echo("renewed")


@click.command()
@click.option("--operator", "url", required=True, metavar="URL", help="The operator's address.")
@click.option("--ca-pin", required=True, metavar="sha256:…", help="The hash of its CA's key.")
@click.option(
    "--state.dir",
    "state_dir",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/narthex"),
    show_default=True,
    help="Where this node keeps its key and certificate.",
)
@click.option(
    "--token-file",
    type=click.File(),
    default="-",
    help="Where the join token stands; by default standard input. It is no argument on purpose:"
    " everybody on the machine can read arguments.",
)
@click.option("--force", is_flag=True, help="Join although this machine is a node already.")
def join(url: str, ca_pin: str, state_dir: Path, token_file: Any, *, force: bool) -> None:
    """Make this machine a node, with a one-time token from the operator."""
    state = State(folder=state_dir)
    if state.identity.exists() and not force:
        raise JoinError(
            f"this machine is the node {state.about().get('name')} already ({state_dir})",
            hint="to make it another one, remove it at the operator and use --force",
        )
    token = JoinToken.parse(token_file.read(4096))
    state.create()
    words = enrol(trust(url.rstrip("/"), ca_pin, state), token, state)
    about = state.about()
    click.echo(f"joined: this machine is now the node {about['name']} ({about['id']})")
    click.echo(f"its fingerprint: {words}")
    click.echo(
        "Compare these words with the operator's, in the panel or with `narthex node list`,"
    )
    click.echo(f"then approve it there, or with: narthex node approve {about['name']}")


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _nonce(operator: Operator) -> str:
    reply = operator.get(NONCE_PATH, NonceReply)
    skew = abs(reply.time.timestamp() - time.time())
    if skew > _SKEW_SECONDS:
        raise JoinError(
            f"this machine's clock differs from the operator's by {skew:.0f} s",
            hint="synchronise it, for instance with chrony, and try again",
        )
    return reply.nonce


def _told(status: int, data: bytes) -> JoinError:
    try:
        problem = Problem.model_validate_json(data)
    except ValidationError:
        return JoinError(f"the operator answers {status}", hint="is that address an operator's?")
    text = "".join(c if c.isprintable() else " " for c in problem.detail or problem.title)
    return JoinError(f"the operator refuses: {text[:500]}", hint=problem.hint[:500])
