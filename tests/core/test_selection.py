"""Which interfaces are watched."""

from __future__ import annotations

import pytest

from netwatch.core.link import Link
from netwatch.core.selection import Selection
from netwatch.errors import InterfaceMissing

LO = Link(1, "lo", 772, is_up=True)
ETH0 = Link(2, "eth0", 1, is_up=True)
VETH1 = Link(3, "veth1", 1, is_up=False, kind="veth")
WG0 = Link(4, "wg0", 65534, is_up=True, kind="wireguard")
HOST = (LO, ETH0, VETH1, WG0)


def selected(selection: Selection, links: tuple[Link, ...] = HOST) -> list[str]:
    return [link.name for link in links if selection.selects(link)]


@pytest.mark.parametrize(
    ("included", "excluded", "expected"),
    [
        pytest.param((), (), ["eth0", "veth1", "wg0"], id="nothing asked for: all but loopback"),
        pytest.param(("lo",), (), ["lo"], id="loopback by name"),
        pytest.param(("/.*/",), (), ["lo", "eth0", "veth1", "wg0"], id="an expression may match loopback"),
        pytest.param(("eth0", "/wg[0-9]+/"), (), ["eth0", "wg0"], id="any of several"),
        pytest.param(("/eth./",), (), ["eth0"], id="an expression matches the whole name"),
        pytest.param((), ("/veth.*/",), ["eth0", "wg0"], id="left out of all"),
        pytest.param(("eth0", "wg0"), ("eth0",), ["wg0"], id="leaving out wins"),
        pytest.param((), ("eth",), ["eth0", "veth1", "wg0"], id="a name is no prefix"),
    ],
)
def test_patterns_select(included: tuple[str, ...], excluded: tuple[str, ...], expected: list[str]) -> None:
    """An interface is selected by the patterns alone."""
    assert selected(Selection(included, excluded)) == expected


def test_a_name_with_a_dot_is_no_expression() -> None:
    """VLAN interfaces have dots in their names, which match nothing else."""
    vlan, other = Link(5, "eth0.7", 1, is_up=True), Link(6, "eth0x7", 1, is_up=True)
    assert selected(Selection(("eth0.7",)), (vlan, other)) == ["eth0.7"]


def test_loopback_of_another_name_is_still_loopback() -> None:
    """What is loopback is told by the link type: the name can be changed."""
    assert selected(Selection(), (Link(1, "lo9", 772, is_up=True),)) == []


def test_a_name_that_does_not_exist_is_missing() -> None:
    """An explicit NAME has to be there at the start, whatever else matches; the message says what is."""
    with pytest.raises(InterfaceMissing, match="'eth7': nothing matches; present: lo, eth0, veth1, wg0") as caught:
        Selection(("eth0", "eth7")).check_present(HOST)
    assert caught.value.exit_code == 5


def test_an_expression_that_matches_nothing_beside_one_that_does_is_returned() -> None:
    """An interface may come later, so an expression without a match is worth a warning only."""
    assert Selection(("eth0", "/tap.*/")).check_present(HOST) == ("/tap.*/",)


def test_all_expressions_match_nothing() -> None:
    """A run that would watch nothing does not start."""
    with pytest.raises(InterfaceMissing, match=r"'/tap\.\*/, /tun\.\*/'"):
        Selection(("/tap.*/", "/tun.*/")).check_present(HOST)


def test_everything_asked_for_is_left_out() -> None:
    """A run that would watch nothing does not start, although the name exists."""
    with pytest.raises(InterfaceMissing, match=r"eth0, without /e\.\*/"):
        Selection(("eth0",), ("/e.*/",)).check_present(HOST)


def test_only_loopback_is_there() -> None:
    """All but loopback is nothing here, and the message says so."""
    with pytest.raises(InterfaceMissing, match="'all but loopback': nothing matches; present: lo"):
        Selection().check_present((LO,))


def test_only_a_plain_name_asks_for_an_interface_by_name() -> None:
    """Expressions and the default sweep interfaces in that the operator may not care for."""
    assert Selection(("eth0", "/wg.*/")).names(ETH0)
    assert not Selection(("eth0", "/wg.*/")).names(WG0)
    assert not Selection().names(ETH0)


@pytest.mark.parametrize("arphrd", [1, 772])
def test_ethernet_and_loopback_have_a_link_header(arphrd: int) -> None:
    """Their packets begin with an Ethernet header."""
    link = Link(1, "x", arphrd, is_up=True)
    assert (link.is_attachable, link.has_link_header) == (True, True)


@pytest.mark.parametrize("arphrd", [512, 519, 768, 769, 776, 778, 823, 65534])
def test_tunnels_have_no_link_header(arphrd: int) -> None:
    """Their packets begin at the network header."""
    link = Link(1, "x", arphrd, is_up=True)
    assert (link.is_attachable, link.has_link_header) == (True, False)


@pytest.mark.parametrize("arphrd", [0, 32, 280, 801, 803, 824])
def test_other_link_types_are_not_attached(arphrd: int) -> None:
    """InfiniBand, CAN, Wi-Fi monitors and the like: nothing there that the parser reads."""
    assert not Link(1, "x", arphrd, is_up=True).is_attachable
