"""Interfaces and hooks as the daemon treats them: what comes and goes, what was asked for, what belongs to others."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import subprocess
from collections import Counter
from collections.abc import Callable

import pytest
from attrs import evolve

from bench.generator import Generator, Mode, Traffic, generate
from tests.kernel.agent_process import AgentProcess, AgentResult
from tests.kernel.bare_programs import (
    TCX_EGRESS,
    TCX_INGRESS,
    TCX_NEXT,
    add_foreign_filter,
    foreign_link,
    foreign_program,
    qdiscs,
    tc_filters,
    tcx_programs,
)
from tests.kernel.guardian_process import guardian_of, kill_guardian
from tests.kernel.hosts import Interface, Namespace
from tests.kernel.scrape import FLAGS, scrape_until
from tests.kernel.test_conservation import assert_balanced
from tests.kernel.waiting import PATIENCE_S, look_until

Start = Callable[..., AgentProcess]
Cable = Callable[[str], tuple[Interface, Interface]]


@pytest.fixture
def host(namespaces: Callable[[], Namespace]) -> Namespace:
    """Return the host that is watched."""
    return namespaces()


@pytest.fixture
def cable(host: Namespace, namespaces: Callable[[], Namespace]) -> Cable:
    """Connect the host: `cable("eth0")` makes that interface, and `far-eth0` in a namespace that all of them share."""
    outside = namespaces()
    return lambda name: tuple(reversed(outside.veth(f"far-{name}", host, name)))


def udp_frame(source_port: int) -> bytes:
    """Return a datagram of 42 bytes to nobody's MAC address."""
    addresses = socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2")
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    return bytes.fromhex("026e77000000026e77000001") + b"\x08\x00" + ip + struct.pack("!HHHH", source_port, 9, 8, 0)


def packets_by_interface(result: AgentResult) -> Counter[str]:
    """Add up packets by the interface where they counted."""
    counted: Counter[str] = Counter()
    for flow in result.flows:
        counted[flow["Interfaces"][0]] += flow["Packets"]
    return counted


def hooks(interface: Interface) -> list[int]:
    """Return the programs on both hooks of an interface."""
    return tcx_programs(interface, TCX_INGRESS) + tcx_programs(interface, TCX_EGRESS)


def test_interface_that_does_not_live_long(host: Namespace, cable: Cable, agent: Start) -> None:
    """Its packets count from when it is attached to its very last, and bear its name, though it has gone by then."""
    cable("eth0")
    daemon = agent(host, "--active-timeout", "1h", "--exclude-interface", "/peer.*/")
    quiet = "multicast off arp off up"
    made = f"link add brief0 type veth peer name peer0\nlink set peer0 {quiet}\nlink set brief0 {quiet}\n"
    with host.enter():
        subprocess.run(["ip", "-batch", "-"], input=made, text=True, check=True)
    brief, peer = host.interface("brief0"), host.interface("peer0")
    sent = 0
    while not tcx_programs(brief, TCX_INGRESS):
        sent += peer.send([udp_frame(sent)])
    attached_at = sent
    for _ in range(101):
        sent += peer.send([udp_frame(sent)])
    host.run("ip", "link", "del", "brief0")
    result = daemon.stop()
    assert_balanced(result)
    assert {tuple(flow["Interfaces"]) for flow in result.flows} == {("brief0",)}
    ports = sorted(flow["SrcPort"] for flow in result.flows)
    assert ports == [*range(ports[0], sent)]
    assert ports[0] <= attached_at


def test_rename(host: Namespace, cable: Cable, agent: Start) -> None:
    """The hooks stay, nothing is missed, and flows bear the name of their time."""
    eth0, far = cable("eth0")
    daemon = agent(host, "-i", "eth0", "--active-timeout", "0.1", *FLAGS)
    held = hooks(eth0)
    far.send([udp_frame(1)] * 101)
    daemon.wait_for_flows(lambda flows: sum(flow["Packets"] for flow in flows) == 101)
    # Older kernels rename only what is down.
    renaming = "link set eth0 down\nlink set eth0 name wan0\nlink set wan0 up\n"
    with host.enter():
        subprocess.run(["ip", "-batch", "-"], input=renaming, text=True, check=True)
    scrape_until(host, lambda now: len(now.find("attached_hooks", interface="wan0")) == 2)
    far.send([udp_frame(1)] * 103)
    assert hooks(host.interface("wan0")) == held
    result = daemon.stop()
    assert_balanced(result)
    assert packets_by_interface(result) == {"eth0": 101, "wan0": 103}


def test_interface_that_goes_and_comes_back(host: Namespace, cable: Cable, agent: Start) -> None:
    """What it saw counts, the others go on, and an interface of the same name is watched as the first was."""
    (_, far_eth0), (_, far_eth1) = cable("eth0"), cable("eth1")
    daemon = agent(host, "-i", "/eth[0-9]/", "--active-timeout", "0.1", *FLAGS)
    far_eth0.send([udp_frame(1)] * 11)
    far_eth1.send([udp_frame(2)] * 13)
    host.run("ip", "link", "del", "eth1")
    scrape_until(host, lambda now: not now.find("attached_hooks", interface="eth1"))
    far_eth0.send([udp_frame(1)] * 17)
    eth1, far_eth1 = cable("eth1")
    look_until(lambda: hooks(eth1), lambda programs: len(programs) == 2)
    # Another flow: one that came back within a second would be taken for a duplicate of what was seen at its old home.
    far_eth1.send([udp_frame(3)] * 19)
    result = daemon.stop()
    assert_balanced(result)
    assert packets_by_interface(result) == {"eth0": 11 + 17, "eth1": 13 + 19}


def test_what_was_asked_for(host: Namespace, cable: Cable, agent: Start) -> None:
    """Regular expressions take in, an exclusion wins, and a direction that nobody wants has no hook."""
    ends = {name: cable(name) for name in ("eth0", "eth1", "wan0")}
    chosen = ("-i", "/eth.*/", "--exclude-interface", "eth1", "--direction", "ingress")
    daemon = agent(host, *chosen, "--active-timeout", "1h")
    for number, (near, far) in enumerate(ends.values()):
        assert len(tcx_programs(near, TCX_INGRESS)) == (near.name == "eth0")
        assert tcx_programs(near, TCX_EGRESS) == []
        far.send([udp_frame(number)] * 7)
        near.send([udp_frame(number)] * 5)
    result = daemon.stop()
    assert_balanced(result)
    (flow,) = result.flows
    assert (flow["SrcPort"], flow["Packets"], flow["Interfaces"], flow["IfDirections"]) == (0, 7, ["eth0"], [0])


def test_two_daemons_on_one_interface(host: Namespace, cable: Cable, agent: Start) -> None:
    """They see the same packets, count them the same, and the one that stays misses nothing when the other goes."""
    _, far = cable("eth0")
    first, second = (agent(host, "-i", "eth0", "--active-timeout", "0.1") for _ in range(2))
    traffic = Traffic(interface=far.name, source="10.0.0.1", destination="10.0.0.2")
    prefix = far.namespace.prefix
    both = generate(evolve(traffic, flows=1009, packets_per_flow=3), prefix)
    one_left = evolve(traffic, mode=Mode.ONE_FLOW, packets=50_021, flows_per_second=50_000 / 50_021)
    with Generator(one_left, prefix) as generator:
        second.wait_for_flows(lambda flows: sum(flow["Packets"] for flow in flows) > both.packets)
        gone = first.stop()
        alone = generator.wait()
    stayed = second.stop()
    assert_balanced(gone)
    assert_balanced(stayed)
    assert stayed.sum("Packets") == both.packets + alone.packets
    assert stayed.sum("Bytes") == both.bytes + alone.bytes
    for result in (gone, stayed):
        flows = {flow["SrcPort"] for flow in result.flows}
        assert flows == {1024 + number for number in range(1009)}
        early = [flow for flow in result.flows if flow["SrcPort"] != 1024]
        assert sum(flow["Packets"] for flow in early) == 1008 * 3
    assert gone.sum("Packets") > both.packets


def test_programs_of_others(host: Namespace, cable: Cable, agent: Start) -> None:
    """TCX links and clsact filters that were there, or come while it runs, stay as they are, and hide nothing."""
    eth0, far = cable("eth0")
    host.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    with foreign_program(TCX_NEXT) as other, foreign_program(TCX_NEXT) as late, contextlib.ExitStack() as links:
        links.enter_context(foreign_link(other, eth0, TCX_INGRESS))
        add_foreign_filter(eth0, other, "pref", "1", "handle", "1")
        before = tc_filters(eth0, "ingress")
        daemon = agent(host, "-i", "eth0")
        links.enter_context(foreign_link(late, eth0, TCX_INGRESS))
        far.send([udp_frame(1)] * 101)
        assert [found for found in tcx_programs(eth0, TCX_INGRESS) if found in (other.id, late.id)] == [
            other.id,
            late.id,
        ]
        assert len(tcx_programs(eth0, TCX_INGRESS)) == 3
        assert tc_filters(eth0, "ingress") == before
        result = daemon.stop()
        assert_balanced(result)
        assert result.sum("Packets") == 101
        assert tcx_programs(eth0, TCX_INGRESS) == [other.id, late.id]
        assert tc_filters(eth0, "ingress") == before
        assert qdiscs(eth0) == ["noqueue", "clsact"]


def test_clsact_from_end_to_end(host: Namespace, cable: Cable, agent: Start) -> None:
    """Without TCX it counts the same. What SIGKILL left is removed by the next run, and that one leaves nothing."""
    eth0, far = cable("eth0")
    traffic = Traffic(interface=far.name, source="10.0.0.1", destination="10.0.0.2", flows=1009, packets_per_flow=3)
    killed = agent(host, "-i", "eth0", "--attach", "tc")
    left = tc_filters(eth0, "ingress")
    kill_guardian(guardian_of(killed.pid))
    killed.send_signal(signal.SIGKILL)
    assert killed.process.wait(timeout=PATIENCE_S) == -signal.SIGKILL
    assert tc_filters(eth0, "ingress") == left != []
    daemon = agent(host, "-i", "eth0", "--attach", "tc", "--active-timeout", "0.1")
    assert len(tc_filters(eth0, "ingress")) == 1
    assert tc_filters(eth0, "ingress") != left
    sent = generate(traffic, far.namespace.prefix)
    eth0.send([udp_frame(1)] * 7)
    result = daemon.stop()
    assert_balanced(result)
    assert (result.sum("Packets"), result.sum("Bytes")) == (sent.packets + 7, sent.bytes + 7 * 42)
    assert qdiscs(eth0) == ["noqueue"]
    assert tcx_programs(eth0, TCX_INGRESS) == []
