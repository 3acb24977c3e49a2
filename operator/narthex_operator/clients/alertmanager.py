"""Ask Alertmanager for alerts and silences; make and end silences."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from pydantic import AwareDatetime, Field, RootModel
from typing_extensions import override

from narthex_operator.clients.exchange import Bounds, Endpoint
from narthex_operator.clients.services import Message, Service

_PATH: Final = "/api/v2"


class AlertStatus(Message):
    """Whether and by what an alert is kept quiet."""

    state: str
    silencedBy: tuple[str, ...] = ()  # noqa: N815 - Alertmanager's own name
    inhibitedBy: tuple[str, ...] = ()  # noqa: N815 - Alertmanager's own name


class ActiveAlert(Message):
    """One alert that Alertmanager holds."""

    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str] = Field(default_factory=dict)
    startsAt: AwareDatetime  # noqa: N815 - Alertmanager's own name
    endsAt: AwareDatetime  # noqa: N815 - Alertmanager's own name
    generatorURL: str = ""  # noqa: N815 - Alertmanager's own name
    status: AlertStatus


class SilenceMatcher(Message):
    """What a silence matches."""

    name: str
    value: str
    isRegex: bool = False  # noqa: N815 - Alertmanager's own name
    isEqual: bool = True  # noqa: N815 - Alertmanager's own name

    @override
    def __str__(self) -> str:
        operator = {(True, True): "=~", (True, False): "!~", (False, True): "="}.get(
            (self.isRegex, self.isEqual), "!="
        )
        return f"{self.name}{operator}{json.dumps(self.value, ensure_ascii=False)}"


class SilenceStatus(Message):
    """``state`` is ``active``, ``pending`` or ``expired``."""

    state: str


class Silence(Message):
    """One silence."""

    id: str
    matchers: tuple[SilenceMatcher, ...]
    startsAt: AwareDatetime  # noqa: N815 - Alertmanager's own name
    endsAt: AwareDatetime  # noqa: N815 - Alertmanager's own name
    createdBy: str  # noqa: N815 - Alertmanager's own name
    comment: str
    status: SilenceStatus


class _Alerts(RootModel[tuple[ActiveAlert, ...]]):
    pass


class _Silences(RootModel[tuple[Silence, ...]]):
    pass


class _Created(Message):
    silenceID: str  # noqa: N815 - Alertmanager's own name


@dataclass(frozen=True, slots=True, kw_only=True)
class Alertmanager:
    """A client. Every method raises UnreachableError."""

    service: Service

    def alerts(self) -> tuple[ActiveAlert, ...]:
        """List alerts that fire, silenced and inhibited ones too."""
        query = {"active": "true", "silenced": "true", "inhibited": "true"}
        return self.service.get(f"{_PATH}/alerts", query, kind=_Alerts, seconds=5.0).root

    def silences(self) -> tuple[Silence, ...]:
        """List silences, ended ones too for as long as Alertmanager remembers them."""
        return self.service.get(f"{_PATH}/silences", kind=_Silences, seconds=5.0).root

    def silence(
        self, labels: Mapping[str, str], *, ends_at: datetime, created_by: str, comment: str
    ) -> str:
        """Silence what has exactly these labels, from now on; returns the silence's id."""
        document = {
            "matchers": [
                {"name": name, "value": value, "isRegex": False, "isEqual": True}
                for name, value in sorted(labels.items())
            ],
            "startsAt": datetime.now(UTC).isoformat(),
            "endsAt": ends_at.isoformat(),
            "createdBy": created_by,
            "comment": comment,
        }
        reply = self.service.call("POST", f"{_PATH}/silences", body=json.dumps(document).encode())
        return self.service.validated(reply, _Created).silenceID

    def end_silence(self, silence_id: str) -> None:
        """End a silence now."""
        self.service.call("DELETE", f"{_PATH}/silence/{quote(silence_id, safe='')}")

    def check(self) -> None:
        """Raise UnreachableError unless it is ready."""
        self.service.call("GET", "/-/ready", seconds=2.0)


def alertmanager_client(url: str) -> Alertmanager:
    """Make a client for the Alertmanager at a base URL."""
    return Alertmanager(
        service=Service(name="Alertmanager", url=url, endpoint=Endpoint.of(url), bounds=Bounds())
    )
