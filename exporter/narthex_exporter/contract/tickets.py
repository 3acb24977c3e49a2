"""Sign and verify tickets: each is a permission to do one thing, once, on one node.

A ticket is a JWS (``EdDSA``, ``typ=narthex-act+jwt``) over the claims below; SECURITY.md of the
design and ``docs/protocol.md`` give the order of checks, which ``verify`` keeps.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from narthex_exporter.contract.errors import TicketError

TYPE: Final = "narthex-act+jwt"
MAX_LIFETIME_SECONDS: Final = 60
# Harmless, because a nonce is spent once; it forgives a skewed clock.
LEEWAY_SECONDS: Final = 120
MAX_TICKET_BYTES: Final = 8192


class Approval(BaseModel):
    """Who approved a run, and when (Unix seconds)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    user: str
    at: int
    id: str


class AuditHead(BaseModel):
    """The newest row of the operator's audit chain, which the node records as a witness."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    seq: int
    head: str


class Claims(BaseModel):
    """What a ticket says.

    ``iss`` cluster · ``aud`` ``node:<id>`` · ``sub`` who asks (``user:42``, ``key:7``) · ``act``
    action or query name, or ``manifest``/``run`` · ``htm``, ``htu`` method and path with query ·
    ``ph`` SHA-256 of the raw body · ``op`` run id · ``jti`` unique per ticket · ``inst`` actor's
    instance · ``nonce`` single-use, from the actor · ``iat``, ``nbf``, ``exp`` Unix seconds.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    iss: str
    aud: str
    sub: str
    act: str
    htm: str
    htu: str
    ph: str
    op: str
    jti: str
    inst: str
    nonce: str
    iat: int
    nbf: int
    exp: int
    sid: str = ""
    rsn: str = ""
    apr: tuple[Approval, ...] = Field(default=())
    ah: AuditHead | None = None


REQUIRED: Final = (
    "iss", "aud", "sub", "act", "htm", "htu", "ph", "op", "jti", "inst", "nonce",
    "iat", "nbf", "exp",
)  # fmt: skip


def body_digest(body: bytes) -> str:
    """Hash the exact bytes of a request's body, as hex."""
    return hashlib.sha256(body).hexdigest()


def sign(claims: Claims, *, key: Ed25519PrivateKey, kid: str) -> str:
    """Sign a ticket. Only the signer program calls this."""
    payload = claims.model_dump(mode="json", exclude_none=True)
    return jwt.encode(payload, key, algorithm="EdDSA", headers={"typ": TYPE, "kid": kid})


def verify(
    ticket: str,
    *,
    keys: Mapping[str, Ed25519PublicKey],
    cluster: str,
    node: str,
    instance: str,
    spend_nonce: Callable[[str], bool],
    method: str,
    target: str,
    body: bytes,
    clock: Callable[[], float] = time.time,
) -> Claims:
    """Check a ticket against the request that carries it, in the protocol's order.

    ``spend_nonce`` must tell once, and only once, that a nonce was ours and unused. Raises
    TicketError, whose ``reason`` is for the audit.
    """
    claims = _decode(ticket, keys=keys, cluster=cluster, node=node, clock=clock)
    if claims.exp - claims.iat > MAX_LIFETIME_SECONDS:
        raise TicketError("lifetime", "the ticket lives longer than 60 s")
    if claims.inst != instance:
        raise TicketError("instance", "the ticket is for another start of the actor")
    if not spend_nonce(claims.nonce):
        raise TicketError("nonce", "the ticket's nonce is unknown or spent")
    if not hmac.compare_digest(claims.ph, body_digest(body)):
        raise TicketError("body", "the ticket is for another body")
    if (claims.htm, claims.htu) != (method, target):
        raise TicketError("target", "the ticket is for another request")
    return claims


def _decode(
    ticket: str,
    *,
    keys: Mapping[str, Ed25519PublicKey],
    cluster: str,
    node: str,
    clock: Callable[[], float],
) -> Claims:
    if not ticket:
        raise TicketError("missing", "the request carries no ticket")
    if len(ticket) > MAX_TICKET_BYTES:
        raise TicketError("size", "the ticket is too long")
    try:
        header = jwt.get_unverified_header(ticket)
    except jwt.PyJWTError as error:
        raise TicketError("malformed", "the ticket is not a JWS") from error
    # PyJWT leaves `typ` to its caller.
    if header.get("typ") != TYPE:
        raise TicketError("type", "the token is not a ticket")
    key = keys.get(str(header.get("kid")))
    if key is None:
        raise TicketError("key", "the ticket is signed by a key that this node does not know")
    try:
        payload: dict[str, Any] = jwt.decode(
            ticket,
            key,
            algorithms=["EdDSA"],
            audience=f"node:{node}",
            issuer=cluster,
            # Times are checked below, by our clock argument.
            options={
                "require": list(REQUIRED),
                "strict_aud": True,
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        claims = Claims.model_validate(payload, strict=False)
    except (jwt.PyJWTError, ValidationError) as error:
        raise TicketError("invalid", f"the ticket is not valid: {type(error).__name__}") from error
    now = clock()
    if now > claims.exp + LEEWAY_SECONDS:
        raise TicketError("expired", "the ticket has expired")
    if now < max(claims.nbf, claims.iat) - LEEWAY_SECONDS:
        raise TicketError("early", "the ticket is not valid yet: is a clock wrong?")
    return claims
