"""What is promised between nodes and operator: declarations, steps, messages, tickets.

Imports nothing else of ours, so that the operator may import it without loading code that
touches a node.
"""

from narthex_exporter.contract.errors import NarthexError, RefusedError, TicketError
from narthex_exporter.contract.facts import Facts, HostFact, ProcessFact, UnitFact
from narthex_exporter.contract.spec import (
    Action,
    Catalogue,
    Danger,
    Params,
    Query,
    QueryParams,
    Result,
    action,
    query,
)
from narthex_exporter.contract.steps import (
    DBusCall,
    Look,
    Note,
    Outcome,
    RunProgram,
    SetPriority,
    Signal,
    Step,
    WriteFile,
)

__all__ = [
    "Action",
    "Catalogue",
    "DBusCall",
    "Danger",
    "Facts",
    "HostFact",
    "Look",
    "NarthexError",
    "Note",
    "Outcome",
    "Params",
    "ProcessFact",
    "Query",
    "QueryParams",
    "RefusedError",
    "Result",
    "RunProgram",
    "SetPriority",
    "Signal",
    "Step",
    "TicketError",
    "UnitFact",
    "WriteFile",
    "action",
    "query",
]
