"""Interfaces that come and go, on the real kernel."""

from __future__ import annotations

import fcntl
import json
import os
import struct
from collections.abc import Callable, Iterator

import pytest
import trio

from netwatch.core.link import LinkGone, LinkSeen
from netwatch.kernel.netlink import RouteNetlink, list_links
from netwatch.kernel.syscall import enable_stats
from tests.kernel.bare_programs import TCX_EGRESS, TCX_INGRESS, qdiscs, runs_of, tcx_programs
from tests.kernel.hosts import Interface, Namespace
from tests.kernel.watcher import Watcher

pytestmark = pytest.mark.kernel

FRAME = bytes(12) + b"\x08\x00" + bytes(50)
_ARPHRD_ETHER, _ARPHRD_CAN = 1, 280
_IFF_TUN, _IFF_NO_PI = 1, 0x1000
_TUNSETIFF, _TUNSETLINK = 0x4004_54CA, 0x4004_54CD


@pytest.fixture
def namespace(namespaces: Callable[[], Namespace]) -> Namespace:
    """Return a namespace with one interface that stays."""
    namespace = namespaces()
    namespace.run("ip", "link", "add", "stays0", "type", "bridge")
    return namespace


@pytest.fixture
def counting_runs() -> Iterator[None]:
    """Make the kernel count runs of programs."""
    stats_fd = enable_stats()
    yield
    os.close(stats_fd)


def add_veth(namespace: Namespace, name: str, peer: str) -> None:
    namespace.run("ip", "link", "add", name, "type", "veth", "peer", "name", peer)


def delete(namespace: Namespace, name: str) -> None:
    namespace.run("ip", "link", "del", name)


def hooks(interface: Interface) -> tuple[list[int], list[int]]:
    return tcx_programs(interface, TCX_INGRESS), tcx_programs(interface, TCX_EGRESS)


def logged(watcher: Watcher) -> list[str]:
    return [told["text"] for told in watcher.told if told["event"] == "log"]


def test_all_but_loopback_is_attached_at_the_start(namespace: Namespace) -> None:
    """Interfaces that are down, too."""
    add_veth(namespace, "one0", "two0")
    with Watcher(namespace, "tcx") as watcher:
        assert sorted(watcher.wait("started")["names"]) == ["one0", "stays0", "two0"]


def test_loopback_is_there_for_the_asking(namespace: Namespace) -> None:
    """By its name, alone."""
    with Watcher(namespace, "tcx", "lo") as watcher:
        assert watcher.wait("started")["names"] == ["lo"]


def test_a_name_that_does_not_exist(namespace: Namespace) -> None:
    """Exit code 5, and what there is instead."""
    with Watcher(namespace, "tcx", "stays0", "eth7") as watcher:
        refused = watcher.wait("refused", "InterfaceMissing")
        assert refused["exit_code"] == 5
        assert refused["text"] == "interface 'eth7': nothing matches; present: lo, stays0"
    assert hooks(namespace.interface("stays0")) == ([], [])


@pytest.mark.parametrize("mode", ["tcx", "tc"])
@pytest.mark.usefixtures("counting_runs")
def test_a_veth_that_does_not_live_long_is_seen(namespace: Namespace, mode: str) -> None:
    """Both its ends are attached while it lives, and its packets are counted until it goes."""
    with Watcher(namespace, mode) as watcher:
        program = watcher.wait("loaded")["ingress_ethernet"]
        watcher.wait("started")
        for number in range(5):
            add_veth(namespace, f"a{number}", f"b{number}")
            for end in "ab":
                watcher.wait("attached", f"{end}{number}")
            runs = runs_of(program)
            for end in "ab":
                namespace.run("ip", "link", "set", f"{end}{number}", "up")
            namespace.interface(f"b{number}").send([FRAME] * 7)
            assert runs_of(program) - runs >= 7
            delete(namespace, f"a{number}")
            watcher.wait("detached", f"a{number}")
        stopped = watcher.stop()
        assert {f"a{number}" for number in range(5)} - set(stopped["names"].values()) == set()
        assert stopped["attached"] == 1
        assert logged(watcher) == []


def test_interfaces_that_vanish_at_once_are_no_error(namespace: Namespace) -> None:
    """Twenty that are gone again before, while or after they are attached: none is left, none is complained of."""
    with Watcher(namespace, "tcx") as watcher:
        watcher.wait("started")
        for number in range(20):
            add_veth(namespace, f"a{number}", f"b{number}")
            delete(namespace, f"a{number}")
        # Events come in order: once this one has been seen, so have those before.
        add_veth(namespace, "last0", "last1")
        watcher.wait("attached", "last0")
        stopped = watcher.stop()
        assert logged(watcher) == []
        assert (stopped["attach_failures"], stopped["attached"]) == (0, 3)


@pytest.mark.parametrize("mode", ["tcx", "tc"])
def test_a_rename_keeps_working(namespace: Namespace, mode: str) -> None:
    """The name follows; the attachment stays, and is removed at the end."""
    with Watcher(namespace, mode) as watcher:
        watcher.wait("started")
        before = hooks(namespace.interface("stays0"))
        namespace.run("ip", "link", "set", "stays0", "name", "moved0")
        add_veth(namespace, "last0", "last1")
        watcher.wait("attached", "last0")
        assert hooks(namespace.interface("moved0")) == before
        assert "moved0" in watcher.stop()["names"].values()
    assert hooks(namespace.interface("moved0")) == ([], [])
    assert "clsact" not in qdiscs(namespace.interface("moved0"))


def test_a_rename_into_the_selection(namespace: Namespace) -> None:
    """Container runtimes make interfaces under a temporary name."""
    with Watcher(namespace, "tcx", "stays0", "/eth[0-9]+/") as watcher:
        watcher.wait("started")
        add_veth(namespace, "tmp0", "other0")
        namespace.run("ip", "link", "set", "tmp0", "name", "eth0")
        assert watcher.wait("attached", "eth0")
        assert not [told for told in watcher.told if told.get("name") == "other0"]


def test_an_index_that_is_used_again(namespace: Namespace) -> None:
    """The newcomer is attached, although its index and name are those of the one before."""
    ifindex = namespace.interface("stays0").ifindex
    with Watcher(namespace, "tcx", "/.*0/") as watcher:
        watcher.wait("attached", "stays0")
        watcher.wait("started")
        delete(namespace, "stays0")
        namespace.run("ip", "link", "add", "stays0", "index", str(ifindex), "type", "bridge")
        assert watcher.wait("attached", "stays0")["ifindex"] == ifindex
        assert all(len(programs) == 1 for programs in hooks(namespace.interface("stays0")))


def test_the_namespace_of_the_peer_is_deleted(namespace: Namespace, namespaces: Callable[[], Namespace]) -> None:
    """The near end of the cable goes with it, as when a pod ends."""
    with Namespace() as pod, Watcher(namespace, "tcx") as watcher:
        watcher.wait("started")
        namespace.veth("pod0", pod, "eth0")
        watcher.wait("attached", "pod0")
        pod.run("ip", "link", "set", "eth0", "down")
        namespace.run("ip", "netns", "delete", pod.name)
        namespace.run("ip", "netns", "add", pod.name)  # for the context to delete
        watcher.wait("detached", "pod0")
        assert watcher.stop()["attached"] == 1


@pytest.mark.parametrize("mode", ["tcx", "tc"])
def test_an_interface_that_moves_to_another_namespace(
    namespace: Namespace, namespaces: Callable[[], Namespace], mode: str
) -> None:
    """It is no longer ours to watch: nothing of ours goes with it."""
    elsewhere = namespaces()
    add_veth(namespace, "moves0", "last0")
    with Watcher(namespace, mode) as watcher:
        watcher.wait("started")
        namespace.run("ip", "link", "set", "moves0", "netns", elsewhere.name)
        watcher.wait("detached", "moves0")
        moved = elsewhere.interface("moves0")
        assert hooks(moved) == ([], [])
        assert "clsact" not in qdiscs(moved)
        assert watcher.stop()["attached"] == 2


def test_a_port_that_leaves_its_bridge_stays_attached(namespace: Namespace) -> None:
    """The kernel tells of it as of a deleted link, of the family AF_BRIDGE."""
    add_veth(namespace, "port0", "port1")
    namespace.run("ip", "link", "set", "port0", "master", "stays0")
    with Watcher(namespace, "tcx") as watcher:
        watcher.wait("started")
        namespace.run("ip", "link", "set", "port0", "nomaster")
        add_veth(namespace, "last0", "last1")
        watcher.wait("attached", "last0")
        assert all(len(programs) == 1 for programs in hooks(namespace.interface("port0")))
        assert not [told for told in watcher.told if told["event"] == "detached"]


def test_events_are_lost_in_a_storm(namespace: Namespace) -> None:
    """With room for a few events only, everything is attached in the end all the same, and the loss is counted."""
    with Watcher(namespace, "tcx", "--event-buffer", "5000") as watcher:
        watcher.wait("started")
        with watcher.stopped():
            for number in range(12):
                add_veth(namespace, f"a{number}", f"b{number}")
        delete(namespace, "a0")
        present = {link["ifname"] for link in _links_shown(namespace)} - {"lo"}
        for name in sorted(present - {"stays0"}):
            watcher.wait("attached", name)
        stopped = watcher.stop()
        assert stopped["netlink_overruns"] >= 1
        assert present <= set(stopped["names"].values())
        assert logged(watcher) == []
    for name in present:
        assert hooks(namespace.interface(name)) == ([], [])


def test_a_link_type_that_changes(namespace: Namespace) -> None:
    """A tun device is told to be Ethernet: packets begin elsewhere now, so the other programs are attached."""
    request = struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI)
    with Watcher(namespace, "tcx") as watcher, namespace.enter(), open("/dev/net/tun", "r+b", buffering=0) as tun:
        programs = watcher.wait("loaded")
        watcher.wait("started")
        fcntl.ioctl(tun, _TUNSETIFF, request)
        watcher.wait("attached", "tun0")
        assert hooks(namespace.interface("tun0")) == ([programs["ingress_ip"]], [programs["egress_ip"]])
        fcntl.ioctl(tun, _TUNSETLINK, _ARPHRD_ETHER)
        watcher.wait("attached", "tun0")
        assert hooks(namespace.interface("tun0")) == ([programs["ingress_ethernet"]], [programs["egress_ethernet"]])
        fcntl.ioctl(tun, _TUNSETLINK, _ARPHRD_CAN)
        assert watcher.wait("log", "INFO")["text"] == "tun0 is not watched: link type 280"
        assert hooks(namespace.interface("tun0")) == ([], [])


def test_events_tell_of_links_and_of_nothing_else(namespace: Namespace) -> None:
    """What a bridge tells of its ports is none: it lacks their kind, and a port that leaves is not gone."""
    with namespace.enter(), RouteNetlink() as netlink:
        netlink.subscribe()
        add_veth(namespace, "port0", "port1")
        port = namespace.interface("port0")
        namespace.run("ip", "link", "set", "port0", "up")
        namespace.run("ip", "link", "set", "port0", "master", "stays0")
        namespace.run("ip", "link", "set", "port0", "nomaster")
        namespace.run("ip", "link", "set", "port0", "down")
        namespace.run("ip", "link", "set", "port0", "name", "moved0")
        delete(namespace, "moved0")
        events = trio.run(netlink.receive)
    told = [event for event in events if isinstance(event, LinkSeen) and event.link.ifindex == port.ifindex]
    assert {(event.link.kind, event.link.arphrd) for event in told} == {("veth", 1)}
    names_and_states = [(event.link.name, event.link.is_up) for event in told]
    assert list(dict.fromkeys(names_and_states)) == [("port0", False), ("port0", True), ("moved0", False)]
    assert events.count(LinkGone(port.ifindex)) == 1


def test_the_list_is_what_ip_shows(namespace: Namespace) -> None:
    """Index, name, type, state and kind of every interface; of a hundred, too, which take several datagrams."""
    for number in range(50):
        add_veth(namespace, f"a{number}", f"b{number}")
    namespace.run("ip", "link", "set", "a7", "up")
    namespace.run("ip", "tuntap", "add", "tun0", "mode", "tun")
    with namespace.enter():
        listed = {link.ifindex: link for link in list_links()}
    shown = _links_shown(namespace)
    assert len(shown) == len(listed) == 103
    for link in shown:
        ours = listed[link["ifindex"]]
        assert ours.name == link["ifname"]
        assert ours.is_up == ("UP" in link["flags"])
        assert ours.kind == link.get("linkinfo", {}).get("info_kind")
        assert ours.arphrd == {"loopback": 772, "ether": 1, "none": 65534}[link["link_type"]]


def _links_shown(namespace: Namespace) -> list[dict[str, object]]:
    shown: list[dict[str, object]] = json.loads(namespace.run("ip", "-json", "-details", "link", "show"))
    return shown
