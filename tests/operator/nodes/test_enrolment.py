import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text

from narthex_exporter.contract.enrolment import JoinToken, TokenError, secret_digest
from narthex_exporter.contract.fingerprint import six_words
from narthex_exporter.transport.identity import identify
from narthex_exporter.transport.keys import make_csr, new_key, public_key_info
from narthex_operator.db import Database
from narthex_operator.errors import ConflictError, DeniedError, InvalidError, NotFoundError
from narthex_operator.security.certificates import generation_of
from narthex_operator.services.access import GRANTS, Actor, Role, local_actor
from narthex_operator.services.nodes import NodeService
from narthex_operator.services.views import NodeState

ME = local_actor("t")
Make = Callable[..., Any]


def leaf(machine: Any) -> x509.Certificate:
    return x509.load_pem_x509_certificate(machine.reply.certificate.encode())


def test_a_machine_joins_waits_and_is_approved(nodes: NodeService, machine: Make) -> None:
    one = machine()
    assert nodes.get(ME, "web-1").state is NodeState.JOINING
    reply = one.join()
    assert (reply.name, reply.generation, generation_of(leaf(one))) == ("web-1", 1, 1)
    view = nodes.get(ME, reply.id)
    assert view.state is NodeState.PENDING
    assert view.fingerprint == six_words(public_key_info(leaf(one)))
    assert nodes.approve(ME, "web-1").state is NodeState.UP
    events = [row.event for row in nodes.audit.list(ME).rows]
    assert events == ["node.approved", "node.enrolled", "node.added"]


def test_fifty_at_once_with_one_token_get_one_certificate(
    nodes: NodeService, machine: Make, database: Database
) -> None:
    one = machine()
    given, refused = [], []

    def try_it() -> None:
        try:
            given.append(nodes.enrol(one.request(make_csr(new_key())), address="").certificate)
        except DeniedError:
            refused.append(1)

    threads = [threading.Thread(target=try_it) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(given), len(refused)) == (1, 49)


def test_a_lost_reply_burns_no_token(nodes: NodeService, machine: Make, clock: Any) -> None:
    one = machine()
    csr = make_csr(one.key)
    first = nodes.enrol(one.request(csr), address="")
    assert nodes.enrol(one.request(csr), address="").certificate == first.certificate
    with pytest.raises(DeniedError, match="used"):
        nodes.enrol(one.request(make_csr(new_key())), address="")
    clock.offset = timedelta(minutes=11)
    with pytest.raises(DeniedError, match="used"):
        nodes.enrol(one.request(csr), address="")


def test_a_token_expires(nodes: NodeService, machine: Make, clock: Any) -> None:
    one = machine()
    clock.offset = timedelta(minutes=31)
    with pytest.raises(DeniedError, match="expired"):
        one.join()


def test_a_new_token_ends_the_old_one(machine: Make) -> None:
    old, new = machine(), machine()
    with pytest.raises(DeniedError):
        old.join()
    assert new.join()


@pytest.mark.parametrize(
    "changes", [{"mac": "0" * 64}, {"node": "n000000000000"}, {"nonce": "1.x.y"}, {"nonce": "x"}]
)
def test_a_request_that_proves_nothing_is_refused(
    nodes: NodeService, machine: Make, changes: dict[str, str]
) -> None:
    one = machine()
    with pytest.raises(DeniedError):
        nodes.enrol(one.request(**changes), address="")
    assert one.join()


def test_an_old_nonce_is_refused(nodes: NodeService, machine: Make, clock: Any) -> None:
    request = machine().request()
    clock.offset = timedelta(seconds=125)
    with pytest.raises(DeniedError, match="too old"):
        nodes.enrol(request, address="")


def test_no_secret_is_kept_anywhere(nodes: NodeService, machine: Make, database: Database) -> None:
    one = machine()
    one.join()
    secret = JoinToken.parse(one.token).secret
    with database.reading() as session:
        kept = [
            session.execute(text(f"SELECT * FROM {table}")).all()  # noqa: S608 - our own names
            for table in ("nodes", "join_tokens", "audit")
        ]
    assert secret not in repr(kept)
    assert secret_digest(secret) in repr(kept)
    assert secret not in repr(JoinToken.parse(one.token))


@pytest.mark.parametrize(
    "token", ["", "nj1", "nj1.../x." + "A" * 43, "nj1.-x." + "A" * 43, "nj1.n1.short",
              "nj2.n1." + "A" * 43, "nj1.N1." + "A" * 43, "nj1.n\0." + "A" * 43, "x" * 10_000]
)  # fmt: skip
def test_what_is_no_token_is_told_without_repeating_it(token: str) -> None:
    with pytest.raises(TokenError) as caught:
        JoinToken.parse(token)
    assert "A" * 43 not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    "changes",
    [{"name": n} for n in ("", "../x", "A", "a_b", "-a", "a-", "x" * 64, "a\nb", "ü", "a\0")]
    + [{"address": a} for a in ("", "web:1", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:65536",
                                "0.0.0.0:1", "::1:5", "224.0.0.1:9", "127.1:5", "192.0.2.1:+5")]
    + [{"lifetime": timedelta(minutes=61)}, {"lifetime": timedelta(0)}],
)  # fmt: skip
def test_a_node_that_cannot_be_is_not_added(nodes: NodeService, changes: dict[str, Any]) -> None:
    wanted: dict[str, Any] = {
        "name": "a",
        "address": "192.0.2.1:19100",
        "lifetime": timedelta(minutes=1),
    }
    with pytest.raises(InvalidError) as caught:
        nodes.add(ME, **(wanted | changes))
    assert caught.value.errors


def test_a_name_is_taken_until_its_node_is_removed(nodes: NodeService, machine: Make) -> None:
    first = machine()
    first.join()
    with pytest.raises(ConflictError):
        machine()
    nodes.remove(ME, "web-1")
    second = machine()
    second.join()
    assert first.reply.id != second.reply.id
    assert [node.id for node in nodes.list(ME)] == [second.reply.id]
    assert nodes.get(ME, first.reply.id).state is NodeState.REMOVED


def test_a_certificate_is_a_nodes_only_while_the_node_is_here(
    nodes: NodeService, machine: Make
) -> None:
    one = machine()
    one.join()
    first = identify(leaf(one).public_bytes(Encoding.DER))
    assert nodes.name_of(first) == "web-1"
    one.renew()
    assert nodes.name_of(first) == "web-1"
    one.renew()
    assert nodes.name_of(first) is None
    assert nodes.name_of(identify(leaf(one).public_bytes(Encoding.DER))) == "web-1"
    nodes.remove(ME, "web-1")
    assert nodes.name_of(identify(leaf(one).public_bytes(Encoding.DER))) is None


def test_renewal_counts_generations_and_repeats_a_lost_reply(
    nodes: NodeService, machine: Make
) -> None:
    one = machine()
    one.join()
    nodes.approve(ME, "web-1")
    request_csr = make_csr(new_key())
    first = nodes.renew(one.renewal(request_csr), address="")
    again = nodes.renew(one.renewal(request_csr), address="")
    assert first.certificate == again.certificate
    assert first.generation == 2
    assert nodes.get(ME, "web-1").state is NodeState.UP


def test_a_copied_key_locks_the_node(nodes: NodeService, machine: Make) -> None:
    one = machine()
    one.join()
    nodes.approve(ME, "web-1")
    nodes.renew(one.renewal(make_csr(new_key())), address="")
    with pytest.raises(DeniedError, match="locked"):
        nodes.renew(one.renewal(make_csr(new_key())), address="")
    assert nodes.get(ME, "web-1").state is NodeState.PENDING
    assert nodes.audit.list(ME).rows[0].event == "node.locked"
    assert nodes.name_of(identify(leaf(one).public_bytes(Encoding.DER))) is None
    with pytest.raises(ConflictError, match="copied"):
        nodes.approve(ME, "web-1")


@pytest.mark.parametrize(("days", "works"), [(6, True), (36, True), (38, False)])
def test_an_expired_certificate_may_renew_for_thirty_days(
    nodes: NodeService,
    machine: Make,
    clock: Any,
    days: int,
    works: bool,  # noqa: FBT001
) -> None:
    one = machine()
    one.join()
    clock.offset = timedelta(days=days)
    if works:
        assert one.renew().generation == 2
    else:
        with pytest.raises(DeniedError, match="30 days"):
            one.renew()


def test_a_removed_node_cannot_renew(nodes: NodeService, machine: Make) -> None:
    one = machine()
    one.join()
    nodes.remove(ME, "web-1")
    with pytest.raises(DeniedError, match="removed"):
        one.renew()


def test_a_renewal_needs_the_present_key(nodes: NodeService, machine: Make) -> None:
    one, other = machine(), machine("web-2")
    one.join()
    other.join()
    csr = make_csr(new_key())
    stolen = one.reply.certificate
    for changes in (
        {"signature": "AAAA"},
        {"signature": "%%%"},
        {"certificate": stolen},
        {"certificate": "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"},
    ):
        with pytest.raises(DeniedError):
            nodes.renew(other.renewal(csr, **changes), address="")
    assert nodes.get(ME, "web-1").state is NodeState.PENDING


def test_only_who_may_changes_nodes(nodes: NodeService, machine: Make) -> None:
    machine()
    actor = Actor(id="user:2", name="o", grants=GRANTS[Role.OPERATOR])
    assert nodes.get(actor, "web-1")
    with pytest.raises(NotFoundError):
        nodes.get(actor, "' OR 1=1 --")
    for call in (
        lambda: nodes.approve(actor, "web-1"),
        lambda: nodes.remove(actor, "web-1"),
        lambda: nodes.add(actor, name="x", address="192.0.2.1:1", lifetime=timedelta(minutes=1)),
    ):
        with pytest.raises(DeniedError):
            call()
