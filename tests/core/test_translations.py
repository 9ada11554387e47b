"""Translated connections: which flows they are, and what becomes of these."""

from __future__ import annotations

import ipaddress

import numpy as np

from netwatch.core.layout import FLOW_KEY
from netwatch.core.translations import Translations


def flow(src: str, src_port: int, dst: str, dst_port: int) -> bytes:
    one = np.zeros(1, FLOW_KEY)
    for name, address in (("src_addr", src), ("dst_addr", dst)):
        ip = ipaddress.ip_address(address)
        packed = ip.packed if ip.version == 6 else ipaddress.ip_address(f"::ffff:{address}").packed
        one[name] = np.frombuffer(packed, "u1")
    one["src_port"], one["dst_port"], one["protocol"] = src_port, dst_port, 6
    return one.tobytes()


CLIENT_TO_GATEWAY = flow("10.1.0.1", 40_000, "10.1.0.2", 8080)
SERVER_TO_GATEWAY = flow("10.2.0.3", 80, "10.2.0.2", 50_000)


def test_both_directions() -> None:
    """Each direction, as it comes to the gateway, shows what it becomes behind it; as it leaves, it shows nothing."""
    translations = Translations(10)
    translations.add(CLIENT_TO_GATEWAY, SERVER_TO_GATEWAY, 7)
    leaving = flow("10.2.0.2", 50_000, "10.2.0.3", 80)
    facts = translations.lookup(np.frombuffer(CLIENT_TO_GATEWAY + leaving + SERVER_TO_GATEWAY, FLOW_KEY))
    assert facts.rows.tolist() == [0, 2]
    there, back = facts.values
    assert bytes(there["src_addr"])[12:] == bytes((10, 2, 0, 2))
    assert bytes(there["dst_addr"])[12:] == bytes((10, 2, 0, 3))
    assert (there["src_port"], there["dst_port"], there["zone"]) == (50_000, 80, 7)
    assert bytes(back["src_addr"])[12:] == bytes((10, 1, 0, 2))
    assert bytes(back["dst_addr"])[12:] == bytes((10, 1, 0, 1))
    assert (back["src_port"], back["dst_port"], back["zone"]) == (8080, 40_000, 7)


def test_bound() -> None:
    """The limit is of connections, not of their directions; the oldest is forgotten, and counted once."""
    translations = Translations(2)
    for port in (1, 2, 3):
        translations.add(flow("10.1.0.1", port, "10.1.0.2", 80), flow("10.2.0.3", 80, "10.2.0.2", port), 0)
    assert (len(translations), translations.forgotten) == (2, 1)
    assert len(translations.lookup(np.frombuffer(flow("10.1.0.1", 1, "10.1.0.2", 80), FLOW_KEY))) == 0


def test_end() -> None:
    """A connection that has ended is known until its last rows have been drained."""
    translations = Translations(2)
    translations.add(CLIENT_TO_GATEWAY, SERVER_TO_GATEWAY, 0)
    translations.remove(CLIENT_TO_GATEWAY, SERVER_TO_GATEWAY)
    keys = np.frombuffer(CLIENT_TO_GATEWAY + SERVER_TO_GATEWAY, FLOW_KEY)
    assert len(translations.lookup(keys)) == 2
    for _ in range(3):
        translations.drained()
    assert len(translations.lookup(keys)) == len(translations) == 0


def test_replace() -> None:
    """What is not in a new list of all has ended; what is in it stands, whether it was known or not."""
    here, there = flow("10.1.0.1", 1, "10.1.0.2", 80), flow("10.2.0.3", 80, "10.2.0.2", 1)
    translations = Translations(10)
    translations.add(CLIENT_TO_GATEWAY, SERVER_TO_GATEWAY, 0)
    for _ in range(10):
        translations.replace([(here, there, 0)])
        translations.drained()
    assert len(translations.lookup(np.frombuffer(CLIENT_TO_GATEWAY + SERVER_TO_GATEWAY, FLOW_KEY))) == 0
    assert translations.lookup(np.frombuffer(here + there, FLOW_KEY)).rows.tolist() == [0, 1]
    assert len(translations) == 1
