"""The tables, one module a domain."""

from narthex_operator.db.models.accounts import ApiToken, KnownSource, SessionRow, SignInLane, User
from narthex_operator.db.models.alerts import AlertRow
from narthex_operator.db.models.audit import AuditCheckpoint, AuditEntry
from narthex_operator.db.models.fleetruns import (
    FleetMember,
    FleetPlanRow,
    FleetRunRow,
    Lease,
    ScheduleRow,
    ScheduleSlot,
)
from narthex_operator.db.models.nodes import JoinTokenRow, Node
from narthex_operator.db.models.runs import ApprovalRow, RunRow
from narthex_operator.db.models.witness import NodeAuditHead, NodeAuditProblem

__all__ = [
    "AlertRow",
    "ApiToken",
    "ApprovalRow",
    "AuditCheckpoint",
    "AuditEntry",
    "FleetMember",
    "FleetPlanRow",
    "FleetRunRow",
    "JoinTokenRow",
    "KnownSource",
    "Lease",
    "Node",
    "NodeAuditHead",
    "NodeAuditProblem",
    "RunRow",
    "ScheduleRow",
    "ScheduleSlot",
    "SessionRow",
    "SignInLane",
    "User",
]
