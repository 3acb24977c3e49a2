"""Virtual machines are reported as libvirt tells of them."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from narthex_exporter.collectors import vms
from narthex_exporter.collectors.spec import NoData, Node
from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.libvirt import STATES, Domain, Libvirt, parse_list, parse_stats
from narthex_exporter.sources.place import Sources
from narthex_exporter.sources.programs import Done, MissingError

STATS = """\
Domain: 'web-1'
  state.state=1
  state.reason=1
  cpu.time=5250000000
  cpu.user=250000000
  balloon.current=2097152
  balloon.maximum=4194304
  balloon.rss=1048576
  vcpu.current=2
  vcpu.maximum=4
  vcpu.0.state=1

Domain: 'it's a "test"'
  state.state=5
  state.reason=0
  balloon.maximum=1048576
  balloon.current=x
  vcpu.current=-1

Domain: ''
  state.state=99

"""
LIST = """\
 Id   Name           State
-------------------------------
 3    web-1          running
 -    with   spaces  shut off
 -    bad            in a mood
 12   idle one       idle

"""
FOREIGN = "error: this function is not supported by the connection driver: virConnectGetAll"


class Virsh:
    def __init__(self, **answers: Done) -> None:
        self.answers = answers

    def __call__(self, argv: tuple[str, ...], **_: float) -> Done:
        return next(self.answers[word] for word in argv if word in self.answers)


def done(text: str = "", error: str = "") -> Done:
    return Done(code=1 if error else 0, output=text.encode(), error=error)


def sources(**answers: Done) -> Sources:
    return Sources(known={Libvirt: Libvirt(run=Virsh(**answers))})


def test_domains_are_parsed_with_what_they_tell() -> None:
    web, odd, nameless = parse_stats(STATS)
    assert web == Domain("web-1", "running", 5.25, 2 << 30, 4 << 30, 1 << 30, 2)
    assert odd == Domain('it\'s a "test"', "shutoff", memory_max_bytes=1 << 30)
    assert nameless == Domain("", "nostate")
    assert parse_stats("state.state=1\n\ufffd\n") == []


def test_the_table_is_parsed_where_there_are_no_statistics() -> None:
    assert parse_list(LIST) == [
        Domain("web-1", "running"),
        Domain("with   spaces", "shutoff"),
        Domain("idle one", "blocked"),
    ]
    assert parse_list("") == []


def test_a_machine_has_one_state_of_all(measure: Callable[..., Any]) -> None:
    found = measure(vms.collect, sources=sources(domstats=done(STATS)))
    web = {state: found[f'narthex_vm_state{{name="web-1",state="{state}"}}'] for state in STATES}
    assert web == {state: int(state == "running") for state in STATES}
    assert found['narthex_vm_cpu_seconds_total{name="web-1"}'] == 5.25
    assert found['narthex_vm_memory_bytes{name="web-1"}'] == 2 << 30
    assert found['narthex_vm_vcpus{name="web-1"}'] == 2


def test_a_hypervisor_without_statistics_is_listed(measure: Callable[..., Any]) -> None:
    answers = sources(domstats=done(error=FOREIGN), list=done(LIST))
    found = measure(vms.collect, sources=answers)
    assert found['narthex_vm_state{name="web-1",state="running"}'] == 1
    assert len(found) == 3 * len(STATES)


def test_machines_are_filtered_and_bounded(make_node: Callable[..., Node]) -> None:
    text = "".join(f"Domain: 'vm-{n:03}'\n  state.state=1\n" for n in range(150))
    settings = {vms.NAMES.exclude: vms.NAMES.exclude.parse("^vm-000$")}
    node = make_node(sources=sources(domstats=done(text)), settings=settings)
    names = {each.values[0] for each in vms.collect.collect(node)}  # type: ignore[union-attr]  # Samples
    assert len(names) == 100
    assert "vm-000" not in names
    assert node.cut == {vms.LIMIT}


def test_a_machine_without_libvirt_says_so(measure: Callable[..., Any]) -> None:
    absent = done(error="error: Failed to connect socket to 'x': No such file or directory\n")
    with pytest.raises(NoData, match="there is no libvirt"):
        measure(vms.collect, sources=sources(domstats=absent))

    def missing(*_: Any, **__: Any) -> Done:
        raise MissingError("there is no program virsh on this machine")

    with pytest.raises(NoData, match="virsh"):
        measure(vms.collect, sources=Sources(known={Libvirt: Libvirt(run=missing)}))


def test_a_failing_libvirt_says_why(measure: Callable[..., Any]) -> None:
    refused = done(error="error: authentication unavailable:\nno polkit agent\n")
    with pytest.raises(UnavailableError, match="unavailable: no polkit agent"):
        measure(vms.collect, sources=sources(domstats=refused))


def test_a_real_libvirt_tells_of_its_test_domain(measure: Callable[..., Any]) -> None:
    if shutil.which("virsh") is None:
        pytest.skip("needs libvirt-clients, which script/test installs")
    found = measure(vms.collect, settings={vms.URI: "test:///default"})
    assert found['narthex_vm_state{name="test",state="running"}'] == 1
    assert len(found) == len(STATES)
    done = Libvirt()._ask("test:///default", "list", "--all")
    assert parse_list(done.output.decode()) == [Domain("test", "running")]
