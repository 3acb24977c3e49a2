"""Services in memory, for page tests and for looking at pages without a product behind them."""

from tests.panel.fake_approvals import FakeApprovals
from tests.panel.fake_fleet import FakeFleet
from tests.panel.fake_fleetruns import FakeFleetRuns, FakeSchedules
from tests.panel.fake_live import FakeLive
from tests.panel.fake_people import FakeAccounts, FakeNodes
from tests.panel.fake_records import FakeAlerts, FakeAudit, FakeLogs
from tests.panel.fake_runs import FakeAsking, FakeRuns
from tests.panel.world import World

from narthex_operator.services.interfaces import Services


def services(world: World) -> Services:
    """Make all the fakes over one world."""
    return Services(
        accounts=FakeAccounts(world),
        nodes=FakeNodes(world),
        fleet=FakeFleet(world),
        runs=FakeRuns(world),
        asking=FakeAsking(world),
        approvals=FakeApprovals(world),
        fleet_runs=FakeFleetRuns(world),
        schedules=FakeSchedules(world),
        audit=FakeAudit(world),
        alerts=FakeAlerts(world),
        logs=FakeLogs(world),
        live=FakeLive(world),
    )


__all__ = ["World", "services"]
