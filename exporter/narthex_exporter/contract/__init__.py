"""What is promised between nodes and operator: declarations, steps, messages, tickets.

Imports nothing else of ours, so that the operator may import it without loading code that
touches a node.
"""

from narthex_exporter.contract.errors import NarthexError, RefusedError, TicketError
from narthex_exporter.contract.facts import Facts, ProcessFact, UnitFact
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
    "NarthexError",
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
