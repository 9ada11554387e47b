"""Translated connections as the kernel's connection tracking tells them, on a router between two hosts."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Awaitable, Callable, Iterator

import attrs
import numpy as np
import pytest
import trio
import trio.testing
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from netwatch.core.layout import FLOW_KEY
from netwatch.core.translations import Translations
from netwatch.kernel import conntrack
from netwatch.kernel.conntrack import follow_translations, list_connections, open_events
from tests.kernel.hosts import Gateway, Interface, Namespace
from tests.kernel.waiting import PATIENCE_S

# Of the client, of the router on its side and on the other, of the server.
ADDRESSES = {4: ("10.1.0.1", "10.1.0.2", "10.2.0.2", "10.2.0.3"), 6: ("fd01::1", "fd01::2", "fd02::2", "fd02::3")}
RULES = """
table {family} nat {{
    chain incoming {{
        type nat hook prerouting priority -100;
        iifname inside0 meta l4proto {{ tcp, udp }} th dport 8080 dnat to {server}:80
    }}
    chain outgoing {{
        type nat hook postrouting priority 100;
        oifname outside0 meta l4proto {{ tcp, udp }} th dport 80 masquerade
        oifname outside0 {icmp} type echo-request masquerade
    }}
}}
"""
NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}


@attrs.frozen
class Router:
    """The one in the middle. `client` is the client's end of its link."""

    namespace: Namespace
    client: Interface
    inside: Interface

    def send(self, *packets: Packet) -> None:
        """Let packets come from the client; they have been through the router when this returns."""
        self.client.send(bytes(Ether(dst=self.inside.mac, src=self.client.mac) / packet) for packet in packets)


@pytest.fixture
def router(namespaces: Callable[[], Namespace]) -> Iterator[Router]:
    """Make a router that translates what goes to its port 8080, and gives its own address to what leaves."""
    middle = namespaces()
    gateway = Gateway.between(namespaces(), middle, namespaces())
    rules = RULES.format(family="ip", server="10.2.0.3", icmp="icmp")
    rules += RULES.format(family="ip6", server="[fd02::3]", icmp="icmpv6")
    middle.run("nft", rules)
    return Router(middle, gateway.client, gateway.inside)


def packet(version: int, protocol: str, dst: str, src_port: int = 40_000, dst_port: int = 8080) -> Packet:
    """Make a first packet of the client."""
    head = (IP if version == 4 else IPv6)(src=ADDRESSES[version][0], dst=dst)
    if protocol == "icmp":
        return head / (ICMP(id=77) if version == 4 else ICMPv6EchoRequest(id=77))
    return head / (TCP if protocol == "tcp" else UDP)(sport=src_port, dport=dst_port)


def raw(address: str) -> bytes:
    """Return an address as flow keys have it."""
    packed = ipaddress.ip_address(address).packed
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


def flow(src: tuple[str, int], dst: tuple[str, int], protocol: int, icmp_type: int = 0) -> bytes:
    """Make a flow key of the addresses and ports of its ends."""
    (src_addr, src_port), (dst_addr, dst_port) = src, dst
    return struct.pack("=16s16sHHBBBx", raw(src_addr), raw(dst_addr), src_port, dst_port, protocol, icmp_type, 0)


def after(translations: Translations, key: bytes) -> tuple[str, int, str, int] | None:
    """Return what the flow is after translation."""
    facts = translations.lookup(np.frombuffer(key, FLOW_KEY))
    if not len(facts):
        return None
    (value,) = facts.values
    src, dst = (ipaddress.IPv6Address(value[name].tobytes()) for name in ("src_addr", "dst_addr"))
    return str(src.ipv4_mapped or src), int(value["src_port"]), str(dst.ipv4_mapped or dst), int(value["dst_port"])


def following(router: Router, monkeypatch: pytest.MonkeyPatch, test: Callable[[Translations], Awaitable[None]]) -> None:
    """Run a test beside a task that follows the router's translations, in its namespace."""

    async def here(function: Callable[[], object]) -> object:
        # A thread that trio keeps may have been made in another namespace.
        return function()

    async def main() -> None:
        translations = Translations(1_000)
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow_translations, translations)
                await trio.testing.wait_all_tasks_blocked()
                await test(translations)
                nursery.cancel_scope.cancel()

    monkeypatch.setattr(trio.to_thread, "run_sync", here)
    with router.namespace.enter():
        trio.run(main)


async def until(condition: Callable[[], bool]) -> None:
    """Let the other task run until it has come to that."""
    while not condition():  # noqa: ASYNC110 - it waits for the kernel
        await trio.sleep(0.005)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
def test_both_ends_translated(router: Router, monkeypatch: pytest.MonkeyPatch, version: int, protocol: str) -> None:
    """A connection to the router's port is known, in both directions, by what became of it; and until it ends."""
    client, inside, outside, server = ADDRESSES[version]

    async def test(translations: Translations) -> None:
        router.send(packet(version, protocol, inside))
        number = NUMBERS[protocol]
        await until(lambda: len(translations) == 1)
        there = flow((client, 40_000), (inside, 8080), number)
        assert after(translations, there) == (outside, 40_000, server, 80)
        assert after(translations, flow((server, 80), (outside, 40_000), number)) == (inside, 8080, client, 40_000)
        router.namespace.run("conntrack", "--flush")
        await until(lambda: not after(translations, there) or translations.drained())

    following(router, monkeypatch, test)


@pytest.mark.parametrize("version", [4, 6])
def test_ping(router: Router, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """Flows without ports are known by their types."""
    client, _, outside, server = ADDRESSES[version]
    number, request, reply = (1, 8, 0) if version == 4 else (58, 128, 129)

    async def test(translations: Translations) -> None:
        router.send(packet(version, "icmp", server))
        await until(lambda: len(translations) == 1)
        assert after(translations, flow((client, 0), (server, 0), number, request)) == (outside, 0, server, 0)
        assert after(translations, flow((server, 0), (outside, 0), number, reply)) == (server, 0, client, 0)

    following(router, monkeypatch, test)


def test_untranslated_connections_stay_in_the_kernel(router: Router) -> None:
    """Of a prime number of connections of each kind that are not translated no event is queued here."""
    plain = [
        packet(version, protocol, ADDRESSES[version][3], src_port, 81)
        for version in (4, 6)
        for protocol in ("tcp", "udp")
        for src_port in range(20_000, 20_101)
    ]
    translated = packet(4, "udp", "10.1.0.2")
    with router.namespace.enter(), open_events() as events:
        router.send(*plain, translated)
        assert int(router.namespace.run("conntrack", "--count")) == len(plain) + 1
        first = events.recv(4096)
        assert raw("10.1.0.2")[12:] in first
        with pytest.raises(BlockingIOError):
            events.recv(4096)
        assert len(list(list_connections())) == 1


def test_connections_of_before(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before is known from the first; its end, which the kernel does not tell, after the next list."""
    monkeypatch.setattr(conntrack, "_LIST_AGAIN_S", 0.05)
    router.send(*(packet(version, "udp", ADDRESSES[version][1]) for version in (4, 6)))

    async def test(translations: Translations) -> None:
        assert len(translations) == 2
        router.namespace.run("conntrack", "--flush")

        def is_empty() -> bool:
            translations.drained()
            return len(translations) == 0

        await until(is_empty)

    following(router, monkeypatch, test)


def test_more_events_than_there_is_room_for(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel had no room for events, all is listed again: nothing is missing, and it is counted."""
    monkeypatch.setattr(conntrack, "_EVENT_BUFFER_BYTES", 8_192)

    async def test(translations: Translations) -> None:
        # The reader has no turn while this one sends.
        router.send(*(packet(4, "udp", "10.1.0.2", src_port) for src_port in range(20_000, 20_101)))
        await until(lambda: len(translations) == 101)
        assert translations.overruns == 1
        router.send(packet(4, "udp", "10.1.0.2"))
        await until(lambda: len(translations) == 102)

    following(router, monkeypatch, test)


def test_kernel_without_connection_tracking(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where there is none it is said once, and nothing fails."""

    def refuse() -> None:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(conntrack, "open_events", refuse)
    with caplog.at_level("INFO"):
        trio.run(follow_translations, Translations(1))
    assert caplog.messages == ["no address translation is told: conntrack by netlink: Protocol not supported"]
