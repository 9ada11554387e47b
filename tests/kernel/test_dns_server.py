"""The DNS server that other tests ask, against scapy's dissection of what it says."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from scapy.layers.dns import DNS

from tests.kernel.dns_client import Asked, ask
from tests.kernel.dns_server import Behaviour, DnsServer, long_name
from tests.kernel.hosts import Namespace, Pair
from tests.kernel.waiting import look_until

DELAY_S = 0.02
BEHAVIOURS = {
    "many.example.org": Behaviour.COMPRESSED,
    "missing.example.org": Behaviour.NXDOMAIN,
    "bare.example.org": Behaviour.BARE,
    "silent.example.org": Behaviour.SILENT,
}


def dissected(asked: Asked) -> DNS:
    assert asked.answer is not None
    return DNS(asked.answer)


@pytest.mark.parametrize("server", ["10.0.0.2", "fd00::2"])
@pytest.mark.parametrize("is_tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("name", ["www.example.org", "many.example.org", long_name(253)], ids=lambda name: name[:8])
def test_name_that_exists(pair: Pair, server: str, is_tcp: bool, name: str) -> None:
    """The answer comes after the delay and not before, with the name that was asked for."""
    with DnsServer(pair.right.namespace, server, delay_s=DELAY_S, behaviours=BEHAVIOURS) as dns:
        asked = ask(pair.left.namespace, server, name, 4711, is_tcp=is_tcp)
    found = dissected(asked)
    assert (found.id, found.qr, found.rcode, dns.asked) == (4711, 1, 0, 1)
    assert found.qd[0].qname.decode() == f"{name}."
    assert {record.rrname.decode() for record in found.an} == {f"{name}."}
    assert [record.rdata for record in found.an] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"][: found.ancount]
    assert found.ancount == (3 if name.startswith("many") else 1)
    assert asked.took_s >= DELAY_S


@pytest.mark.parametrize("is_tcp", [False, True], ids=["udp", "tcp"])
def test_name_that_does_not_exist(pair: Pair, is_tcp: bool) -> None:
    """The answer is short: header and question."""
    with DnsServer(pair.right.namespace, "10.0.0.2", behaviours=BEHAVIOURS):
        asked = ask(pair.left.namespace, "10.0.0.2", "missing.example.org", 5, is_tcp=is_tcp)
    assert asked.answer is not None
    assert len(asked.answer) == 12 + 21 + 4
    assert (dissected(asked).rcode, dissected(asked).ancount) == (3, 0)


def test_answer_of_a_header_alone(pair: Pair) -> None:
    """No message is shorter."""
    with DnsServer(pair.right.namespace, "10.0.0.2", behaviours=BEHAVIOURS):
        asked = ask(pair.left.namespace, "10.0.0.2", "bare.example.org", 6)
    assert asked.answer is not None
    assert len(asked.answer) == 12
    assert (dissected(asked).id, dissected(asked).rcode) == (6, 1)


def test_name_without_answer(pair: Pair) -> None:
    """The question arrives, and nothing comes back; other names are answered as before."""
    with DnsServer(pair.right.namespace, "10.0.0.2", behaviours=BEHAVIOURS) as dns:
        asked = ask(pair.left.namespace, "10.0.0.2", "silent.example.org", 7, timeout_s=0.1)
        assert ask(pair.left.namespace, "10.0.0.2", "www.example.org", 8).answer is not None
    assert (asked.answer, dns.asked) == (None, 2)
    assert pair.right.statistics().tx_packets == 1


@pytest.mark.parametrize("server_cpu", sorted(os.sched_getaffinity(0)))
@pytest.mark.parametrize("client_cpu", sorted(os.sched_getaffinity(0)))
def test_on_any_cpu(pair: Pair, server_cpu: int, client_cpu: int) -> None:
    """Client and server can be bound to a CPU each, and the thread of the test is free again afterwards."""
    before = os.sched_getaffinity(0)
    with DnsServer(pair.right.namespace, "10.0.0.2", cpu=server_cpu):
        assert ask(pair.left.namespace, "10.0.0.2", "www.example.org", 9, cpu=client_cpu).answer is not None
    assert os.sched_getaffinity(0) == before


def test_server_that_ends_while_questions_wait(namespaces: Callable[[], Namespace]) -> None:
    """It does not wait for its delay."""
    namespace = namespaces()
    with DnsServer(namespace, "127.0.0.1", delay_s=3600) as dns:
        for number, is_tcp in enumerate((False, True), 1):
            assert ask(namespace, "127.0.0.1", "www.example.org", 1, is_tcp=is_tcp, timeout_s=0.1).answer is None
            assert look_until(lambda: dns.asked, number.__le__) == number


@pytest.mark.parametrize("characters", [1, 63, 65, 128, 200, 253])
def test_long_name(characters: int) -> None:
    """A name has as many characters as were asked for, and no label more than 63."""
    name = long_name(characters)
    assert len(name) == characters
    assert all(1 <= len(label) <= 63 for label in name.split("."))
