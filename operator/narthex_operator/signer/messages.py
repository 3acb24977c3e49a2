"""What the operator may ask of the signer, and what it answers: JSON over the socket."""

from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, IPvAnyAddress

from narthex_exporter.contract.tickets import Claims

MAX_TICKETS: Final = 256

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Pem = Annotated[str, Field(min_length=1, max_length=8192)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeCertificateRequest(_Message):
    """Ask for a node's certificate: 7 days, its own names and the approved addresses only."""

    csr: Pem
    node: Name
    generation: int = Field(ge=1, le=1 << 31)
    addresses: tuple[IPvAnyAddress, ...] = Field(default=(), max_length=8)


class RoleCertificateRequest(_Message):
    """Ask for a certificate of ours: ``operator`` 24 h, ``scrape`` 30 d, ``server`` 90 d."""

    csr: Pem
    role: Literal["operator", "scrape", "server"]
    id: Name
    addresses: tuple[IPvAnyAddress, ...] = Field(default=(), max_length=8)
    names: tuple[Annotated[str, Field(max_length=253)], ...] = Field(default=(), max_length=8)


class CertificateReply(_Message):
    """A signed certificate, PEM."""

    certificate: Pem


class CAReply(_Message):
    """The CA: what peers trust, and the pin that nodes compare."""

    cluster: str
    certificate: Pem
    pin: str


class TicketRequest(_Message):
    """Ask for a ticket's signature."""

    claims: Claims


class TicketReply(_Message):
    """A signed ticket."""

    ticket: str


class RotationRequest(_Message):
    """Ask for the next ticket key to come into use now; only root and the signer's own user may.

    ``force`` does so although nodes may not have fetched it yet.
    """

    force: bool = False


class RotationReply(_Message):
    """The keys after a rotation, by id: ``retired`` signs no more."""

    version: int
    retired: str
    current: str
    next: str


class TicketsRequest(_Message):
    """Ask for the signatures of some tickets of one subject: all are signed, or none."""

    claims: tuple[Claims, ...] = Field(min_length=1, max_length=MAX_TICKETS)


class TicketsReply(_Message):
    """Signed tickets, in the order of their claims."""

    tickets: tuple[str, ...]


class CheckpointRequest(_Message):
    """Ask for the signer's word that the operator's audit ends like this."""

    seq: int = Field(ge=1)
    head: str = Field(pattern=r"^[0-9a-f]{64}$")
    at: AwareDatetime


class CheckpointReply(_Message):
    """A signature over ``checkpoint_bytes``, base64url, by the CA key."""

    signature: str


class ErrorReply(_Message):
    """Why the signer refuses."""

    error: str
    hint: str = ""


def checkpoint_bytes(cluster: str, request: CheckpointRequest) -> bytes:
    """Give what a checkpoint's signature covers; the prefix keeps it apart from other words."""
    return f"narthex-checkpoint-v1|{cluster}|{request.seq}|{request.head}".encode()


TicketKeys = dict[str, Any]
"""The document of public ticket keys, as the CA signed it: nobody re-writes it."""
