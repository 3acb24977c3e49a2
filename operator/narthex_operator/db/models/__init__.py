"""The tables, one module a domain."""

from narthex_operator.db.models.accounts import ApiToken, KnownSource, SessionRow, SignInLane, User
from narthex_operator.db.models.alerts import AlertRow
from narthex_operator.db.models.audit import AuditCheckpoint, AuditEntry
from narthex_operator.db.models.nodes import JoinTokenRow, Node
from narthex_operator.db.models.runs import ApprovalRow, RunRow

__all__ = [
    "AlertRow",
    "ApiToken",
    "ApprovalRow",
    "AuditCheckpoint",
    "AuditEntry",
    "JoinTokenRow",
    "KnownSource",
    "Node",
    "RunRow",
    "SessionRow",
    "SignInLane",
    "User",
]
