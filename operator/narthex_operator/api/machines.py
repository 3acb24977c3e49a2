"""What the product's own parts and nodes ask: discovery, webhook, enrolment, health, metrics."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from flask import Response, request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, ConfigDict

from narthex_exporter.contract.enrolment import (
    CA_PATH,
    CERTIFICATES_PATH,
    NONCE_PATH,
    RENEWALS_PATH,
    EnrolmentReply,
    EnrolmentRequest,
    NonceReply,
    RenewalRequest,
)
from narthex_operator.api.routing import Ask, Output, Route
from narthex_operator.errors import UnreachableError
from narthex_operator.services.access import PUBLIC
from narthex_operator.services.interfaces import Nodes
from narthex_operator.services.views import NodeState

_UNKNOWN: Final = frozenset({NodeState.JOINING, NodeState.REMOVED})
PEM: Final = "application/x-pem-file"


class Enrolment(Protocol):
    """How machines become nodes: each request proves itself."""

    def ca_pem(self) -> str:
        """Give the CA's certificate."""
        ...

    def nonce(self) -> NonceReply:
        """Give a nonce for one request."""
        ...

    def enrol(self, request: EnrolmentRequest, *, address: str) -> EnrolmentReply:
        """Make a machine a node."""
        ...

    def renew(self, request: RenewalRequest, *, address: str) -> EnrolmentReply:
        """Give a node its next certificate."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Machinery:
    """What these routes need besides the services. ``amiss`` says what is not ready."""

    enrolment: Enrolment
    registry: CollectorRegistry
    refresh_seconds: int
    amiss: Callable[[], str]


class Webhook(BaseModel):
    """Alertmanager's webhook, version 4; the service reads it."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Taken(Output):
    """How many alerts were told of."""

    alerts: int


class Health(Output):
    """That the operator runs."""

    status: str


def routes(machinery: Machinery) -> tuple[Route, ...]:
    """Give the routes."""
    enrolment = machinery.enrolment

    def ready(ask: Ask) -> Health:
        del ask
        why = machinery.amiss()
        if why:
            raise NotReadyError(f"not ready: {why}", hint="see `narthex doctor`")
        return Health(status="ready")

    def metrics(ask: Ask) -> Response:
        del ask
        encode, media = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(machinery.registry), content_type=media)

    return (
        Route(
            name="ca",
            method="GET",
            rule=CA_PATH,
            permission=PUBLIC,
            tag="enrolment",
            summary="Give the CA's certificate; compare its pin before trusting it.",
            call=lambda _ask: Response(enrolment.ca_pem(), mimetype=PEM),
        ),
        Route(
            name="enrolment_nonce",
            method="GET",
            rule=NONCE_PATH,
            permission=PUBLIC,
            tag="enrolment",
            summary="Give a nonce for one request.",
            call=lambda _ask: enrolment.nonce(),
            reply=NonceReply,
        ),
        Route(
            name="enrol",
            method="POST",
            rule=CERTIFICATES_PATH,
            permission=PUBLIC,
            machine=True,
            tag="enrolment",
            summary="Make a machine a node, by a join token.",
            call=lambda ask: enrolment.enrol(ask.body, address=request.remote_addr or ""),
            body=EnrolmentRequest,
            reply=EnrolmentReply,
        ),
        Route(
            name="renew",
            method="POST",
            rule=RENEWALS_PATH,
            permission=PUBLIC,
            machine=True,
            tag="enrolment",
            summary="Give a node its next certificate.",
            call=lambda ask: enrolment.renew(ask.body, address=request.remote_addr or ""),
            body=RenewalRequest,
            reply=EnrolmentReply,
        ),
        Route(
            name="sd",
            method="GET",
            rule="/sd/prometheus",
            permission="machine:sd",
            machine=True,
            tag="machines",
            summary="Tell Prometheus which nodes to scrape, in its HTTP discovery's format.",
            call=lambda ask: _targets(ask, machinery.refresh_seconds),
        ),
        Route(
            name="webhook",
            method="POST",
            rule="/alertmanager/webhook",
            permission="machine:webhook",
            machine=True,
            tag="machines",
            summary="Take Alertmanager's webhook, version 4.",
            call=lambda ask: Taken(alerts=ask.services.alerts.receive(ask.body.model_dump())),
            body=Webhook,
            reply=Taken,
            status=202,
        ),
        Route(
            name="healthy",
            method="GET",
            rule="/-/healthy",
            permission=PUBLIC,
            tag="machines",
            summary="Tell that the operator runs.",
            call=lambda _ask: Health(status="healthy"),
            reply=Health,
        ),
        Route(
            name="ready",
            method="GET",
            rule="/-/ready",
            permission=PUBLIC,
            tag="machines",
            summary="Tell whether the operator can do its work.",
            call=ready,
            reply=Health,
        ),
        Route(
            name="metrics",
            method="GET",
            rule="/metrics",
            permission="metrics:read",
            machine=True,
            tag="machines",
            summary="Give the operator's own metrics.",
            call=metrics,
        ),
    )


class NotReadyError(UnreachableError):
    """Something that the operator needs does not answer yet."""

    kind = "not-ready"
    status = 503


def _targets(ask: Ask, refresh_seconds: int) -> Response:
    response = Response(json.dumps(targets(ask.services.nodes, ask)), mimetype="application/json")
    response.headers["X-Prometheus-Refresh-Interval-Seconds"] = str(refresh_seconds)
    return response


def targets(nodes: Nodes, ask: Ask) -> list[Mapping[str, Any]]:
    """List what Prometheus shall scrape: every node that has a certificate."""
    return [
        {
            "targets": [node.address],
            "labels": {
                "__meta_narthex_node_id": node.id,
                "__meta_narthex_name": node.name,
                "__meta_narthex_group": node.group,
            },
        }
        for node in nodes.list(ask.actor)
        if node.state not in _UNKNOWN
    ]
