"""The names of interfaces, kept as long as a flow can bear their index."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.interfaces import InterfaceRegistry
from netwatch.core.link import Link


def veth(ifindex: int, name: str) -> Link:
    return Link(ifindex, name, 1, is_up=True, kind="veth")


def test_a_gone_interface_is_named_in_the_drains_that_need_it() -> None:
    """One drain reads the epoch in which it went, the next may read its index as a home; one may be under way."""
    registry = InterfaceRegistry()
    registry.add(veth(7, "veth7"))
    registry.remove(7)
    named = []
    for _ in range(5):
        named.append(registry.snapshot().name(7))
        registry.drained()
    assert named == ["veth7", "veth7", "veth7", "ifindex7", "ifindex7"]


def test_an_interface_that_is_there_is_named_for_ever() -> None:
    """Only what is gone is forgotten."""
    registry = InterfaceRegistry()
    registry.add(veth(7, "veth7"))
    for _ in range(10):
        registry.drained()
    assert registry.snapshot().name(7) == "veth7"


def test_what_is_watched_now() -> None:
    """Names of interfaces that are there, without those that have gone."""
    registry = InterfaceRegistry()
    for ifindex in (7, 8, 9):
        registry.add(veth(ifindex, f"veth{ifindex}"))
    registry.remove(8)
    assert registry.present() == ("veth7", "veth9")


def test_an_index_that_is_used_again_has_the_new_name() -> None:
    """The newcomer's name wins at once, and the drains do not take it away."""
    registry = InterfaceRegistry()
    registry.add(veth(7, "old"))
    registry.remove(7)
    registry.add(veth(7, "new"))
    for _ in range(5):
        assert registry.snapshot().name(7) == "new"
        registry.drained()


def test_a_rename_shows_in_the_next_snapshot_and_not_in_the_last() -> None:
    """A snapshot belongs to its batches and does not change under them."""
    registry = InterfaceRegistry()
    registry.add(veth(7, "eth0"))
    before = registry.snapshot()
    registry.rename(7, "lan0")
    assert (before.name(7), registry.snapshot().name(7)) == ("eth0", "lan0")


def test_renaming_what_is_not_known_adds_nothing() -> None:
    """Interfaces that are not watched do not fill the registry."""
    registry = InterfaceRegistry()
    registry.rename(7, "lan0")
    assert not registry.snapshot().by_ifindex


def test_a_snapshot_without_changes_is_the_same_object() -> None:
    """A drain each 50 ms does not copy thousands of names."""
    registry = InterfaceRegistry()
    registry.add(veth(7, "veth7"))
    first = registry.snapshot()
    registry.rename(7, "veth7")
    registry.drained()
    assert registry.snapshot() is first


def test_too_many_names_forget_the_longest_gone_first() -> None:
    """Those that are there stay, as long as they fit."""
    registry = InterfaceRegistry(max_names=3)
    for ifindex in (1, 2, 3):
        registry.add(veth(ifindex, f"veth{ifindex}"))
    registry.remove(2)
    registry.remove(1)
    registry.add(veth(4, "veth4"))
    assert sorted(registry.snapshot().by_ifindex) == [1, 3, 4]


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "drained"]), st.integers(1, 40))), st.integers(1, 8))
def test_the_bound_holds(steps: list[tuple[str, int]], max_names: int) -> None:
    """However interfaces come and go, no more than `max_names` are kept, and the newest is among them."""
    registry = InterfaceRegistry(max_names)
    for step, ifindex in steps:
        if step == "add":
            registry.add(veth(ifindex, f"veth{ifindex}"))
            assert registry.snapshot().name(ifindex) == f"veth{ifindex}"
        elif step == "remove":
            registry.remove(ifindex)
        else:
            registry.drained()
        assert len(registry.snapshot().by_ifindex) <= max_names
