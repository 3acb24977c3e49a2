"""The tables, one module a domain."""

from narthex_operator.db.models.accounts import ApiToken, KnownSource, SessionRow, SignInLane, User
from narthex_operator.db.models.alerts import AlertRow
from narthex_operator.db.models.audit import AuditCheckpoint, AuditEntry
from narthex_operator.db.models.nodes import JoinTokenRow, Node
from narthex_operator.db.models.runs import RunRow
from narthex_operator.db.models.witness import NodeAuditHead, NodeAuditProblem

__all__ = [
    "AlertRow",
    "ApiToken",
    "AuditCheckpoint",
    "AuditEntry",
    "JoinTokenRow",
    "KnownSource",
    "Node",
    "NodeAuditHead",
    "NodeAuditProblem",
    "RunRow",
    "SessionRow",
    "SignInLane",
    "User",
]
