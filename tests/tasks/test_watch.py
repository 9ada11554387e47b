"""The watching task, over a fake host, on a virtual clock."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from netwatch.core.interfaces import InterfaceRegistry
from netwatch.core.link import Link
from netwatch.core.selection import Selection
from netwatch.errors import AttachError, InterfaceMissing
from netwatch.watch import WatchCounts, watch_interfaces
from tests.tasks.fake_host import FakeHost

LO = Link(1, "lo", 772, is_up=True)
ETH0 = Link(2, "eth0", 1, is_up=True)
ETH1 = Link(3, "eth1", 1, is_up=True)
CAN0 = Link(9, "can0", 280, is_up=True)


def veth(ifindex: int, name: str | None = None) -> Link:
    return Link(ifindex, name or f"veth{ifindex}", 1, is_up=False, kind="veth")


@attrs.define
class Watched:
    """What a test sees of a watching task."""

    host: FakeHost
    started: tuple[Link, ...]
    names: InterfaceRegistry
    counts: WatchCounts

    def name(self, ifindex: int) -> str:
        return self.names.snapshot().name(ifindex)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def in_time() -> None:
        with trio.fail_after(600):
            await main()

    trio.run(in_time, clock=trio.testing.MockClock(autojump_threshold=0))


def host_with(*links: Link, **settings_of_host: object) -> FakeHost:
    host = FakeHost(**settings_of_host)  # type: ignore[arg-type]
    for link in links:
        host.add(link)
    return host


@asynccontextmanager
async def watching(host: FakeHost, selection: Selection | None = None) -> AsyncIterator[Watched]:
    names, counts = InterfaceRegistry(), WatchCounts()
    async with trio.open_nursery() as nursery:
        started = await nursery.start(watch_interfaces, host, selection or Selection(), host, names, counts)
        yield Watched(host, started, names, counts)
        nursery.cancel_scope.cancel()


def start_alone(host: FakeHost, selection: Selection) -> None:
    """Run the task alone, which raises what keeps it from starting."""

    async def main() -> None:
        await watch_interfaces(host, selection, host, InterfaceRegistry(), WatchCounts())

    run(main)


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


def test_start_attaches_to_what_is_there() -> None:
    """Once started, every selected interface is attached, and the caller is told which."""

    async def main() -> None:
        async with watching(host_with(LO, ETH0, veth(7))) as watched:
            assert watched.host.attached() == ["eth0", "veth7"]
            assert [link.name for link in watched.started] == ["eth0", "veth7"]
            assert watched.counts.attached == 2

    run(main)


def test_stop_detaches_everything_and_keeps_the_names() -> None:
    """The drain that follows a stop still names the interfaces."""

    async def main() -> None:
        async with watching(host_with(ETH0, ETH1)) as watched:
            pass
        assert watched.host.attached() == []
        assert watched.counts.attached == 0
        assert [watched.name(2), watched.name(3)] == ["eth0", "eth1"]

    run(main)


def test_subscribes_before_it_lists() -> None:
    """An interface made between the two would otherwise never be seen."""

    async def main() -> None:
        async with watching(host_with(ETH0)) as watched:
            assert watched.host.calls == ["subscribe", "links"]

    run(main)


def test_an_interface_made_while_others_are_being_attached_at_the_start() -> None:
    """Events queued during a slow start are followed after it."""

    async def main() -> None:
        host = host_with(ETH0, attach_s=1)
        async with trio.open_nursery() as nursery:
            args = (host, Selection(), host, InterfaceRegistry(), WatchCounts())
            nursery.start_soon(watch_interfaces, *args)
            await trio.sleep(0.5)
            host.add(veth(7))
            await trio.sleep(5)
            assert host.attached() == ["eth0", "veth7"]
            nursery.cancel_scope.cancel()

    run(main)


def test_a_new_interface_that_is_down_is_attached() -> None:
    """Its first packet may come as soon as it goes up."""

    async def main() -> None:
        async with watching(host_with(ETH0)) as watched:
            watched.host.add(veth(7))
            await settle()
            assert watched.host.attached() == ["eth0", "veth7"]
            assert watched.name(7) == "veth7"

    run(main)


def test_a_new_interface_that_is_not_selected_is_left_alone() -> None:
    """Patterns hold for what comes later, too."""

    async def main() -> None:
        async with watching(host_with(ETH0), Selection(excluded=("/veth.*/",))) as watched:
            watched.host.add(veth(7))
            await settle()
            assert watched.host.attempts == ["eth0"]

    run(main)


def test_many_events_of_one_interface_attach_it_once() -> None:
    """Going up, getting an address, joining a bridge: each is told as the whole link."""

    async def main() -> None:
        async with watching(host_with(ETH0)) as watched:
            watched.host.add(veth(7))
            watched.host.change(7, is_up=True)
            await settle()
            watched.host.change(7, is_up=False)
            await settle()
            assert watched.host.attempts == ["eth0", "veth7"]

    run(main)


def test_a_deleted_interface_keeps_its_name_for_the_drain() -> None:
    """Its last flows are still in the map."""

    async def main() -> None:
        async with watching(host_with(ETH0, veth(7))) as watched:
            watched.host.delete(7)
            await settle()
            assert watched.counts.attached == 1
            assert watched.name(7) == "veth7"

    run(main)


def test_the_name_of_a_deleted_interface_is_forgotten_in_the_end() -> None:
    """Hosts on which interfaces come and go for months do not fill up with names."""

    async def main() -> None:
        async with watching(host_with(ETH0, veth(7))) as watched:
            watched.host.delete(7)
            await settle()
            for _ in range(3):
                watched.names.drained()
            assert watched.name(7) == "ifindex7"

    run(main)


def test_an_interface_that_vanishes_before_it_is_attached_is_no_error() -> None:
    """Short-lived containers do this all day long."""

    async def main() -> None:
        async with watching(host_with(ETH0)) as watched:
            watched.host.add(veth(7))
            watched.host.delete(7)
            await settle()
            assert watched.host.attempts == ["eth0", "veth7"]
            assert (watched.counts.attached, watched.counts.attach_failures) == (1, 0)

    run(main)


def test_an_index_that_another_interface_takes_over() -> None:
    """The new interface is attached, under its own name."""

    async def main() -> None:
        async with watching(host_with(ETH0, veth(7, "old"))) as watched:
            watched.host.delete(7)
            watched.host.add(veth(7, "new"))
            await settle()
            assert watched.host.attached() == ["eth0", "new"]
            assert watched.name(7) == "new"

    run(main)


def test_a_rename_keeps_the_attachment() -> None:
    """The name changes, the programs stay: also where the new name would not have been selected."""

    async def main() -> None:
        async with watching(host_with(ETH0), Selection(("/eth.*/",))) as watched:
            watched.host.change(2, name="lan0")
            await settle()
            assert watched.host.attached() == ["lan0"]
            assert watched.name(2) == "lan0"
            assert watched.host.attempts == ["eth0"]

    run(main)


def test_a_rename_into_the_selection_attaches() -> None:
    """Udev and container runtimes make interfaces under another name first."""

    async def main() -> None:
        async with watching(host_with(ETH0), Selection(("/eth.*/",))) as watched:
            watched.host.add(veth(7, "tmp7"))
            await settle()
            watched.host.change(7, name="eth7")
            await settle()
            assert watched.host.attached() == ["eth0", "eth7"]

    run(main)


def test_a_change_of_the_link_type_attaches_anew() -> None:
    """Packets begin elsewhere then, which is another program's work."""

    async def main() -> None:
        async with watching(host_with(ETH0, veth(7, "bond0"))) as watched:
            watched.host.change(7, arphrd=65534)
            await settle()
            assert watched.host.attempts == ["eth0", "bond0", "bond0"]
            assert watched.host.attached() == ["bond0", "eth0"]

    run(main)


def test_an_overrun_lists_again_and_puts_everything_right() -> None:
    """What was lost is made up for: gone, new, renamed, and an index that changed hands unseen."""

    async def main() -> None:
        host = host_with(ETH0, veth(7), veth(8, "old"), veth(9), max_events=1)
        async with watching(host) as watched:
            host.add(veth(10))
            host.delete(7)
            host.delete(8)
            host.add(veth(8, "new"))
            host.change(9, name="renamed")
            await settle()
            assert host.attached() == ["eth0", "new", "renamed", "veth10"]
            assert [watched.name(i) for i in (7, 8, 9, 10)] == ["veth7", "new", "renamed", "veth10"]
            assert watched.counts.netlink_overruns == 1
            assert host.calls == ["subscribe", "links"] * 2

    run(main)


def test_an_index_that_changed_hands_unseen_under_the_same_name() -> None:
    """Nothing in the list tells the two interfaces apart: only the attachment knows that it is gone."""

    async def main() -> None:
        host = host_with(ETH0, veth(7), max_events=1)
        async with watching(host):
            host.delete(7)
            host.add(veth(7))
            await settle()
            assert host.attached() == ["eth0", "veth7"]

    run(main)


def test_one_of_many_cannot_be_attached_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody asked for this one by name: a warning, a count, and the others are watched."""

    async def main() -> None:
        async with watching(host_with(ETH0, ETH1, refused={"eth1": "ERANGE"})) as watched:
            assert watched.host.attached() == ["eth0"]
            assert watched.counts.attach_failures == 1

    run(main)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "cannot attach to eth1 (tcx ingress): ERANGE; a hint"
    ]


def test_an_interface_asked_for_by_name_cannot_be_attached() -> None:
    """Then the run does not start, and what was attached already is detached."""
    host = host_with(ETH0, ETH1, refused={"eth1": "ERANGE"})
    with pytest.raises(AttachError, match="eth1"):
        start_alone(host, Selection(("eth0", "eth1")))
    assert host.attempts == ["eth0", "eth1"]
    assert host.attached() == []


def test_none_can_be_attached() -> None:
    """A run that watches nothing does not start; the first refusal says why."""
    host = host_with(ETH0, ETH1, refused={"eth0": "ERANGE", "eth1": "ENOMEM"})
    with pytest.raises(AttachError, match=r"eth0.*ERANGE"):
        start_alone(host, Selection())


def test_nothing_is_selected() -> None:
    """The run does not start."""
    with pytest.raises(InterfaceMissing, match="all but loopback"):
        start_alone(host_with(LO), Selection())


def test_an_expression_without_a_match_yet(caplog: pytest.LogCaptureFixture) -> None:
    """It is told once at the start, and watched for."""

    async def main() -> None:
        async with watching(host_with(ETH0), Selection(("eth0", "/tap.*/"))) as watched:
            watched.host.add(Link(7, "tap0", 1, is_up=False))
            await settle()
            assert watched.host.attached() == ["eth0", "tap0"]

    run(main)
    assert "interface /tap.*/: nothing matches yet" in caplog.messages


def test_an_interface_that_cannot_be_attached_is_tried_again_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    """The same event twice is no reason; going up is."""

    async def main() -> None:
        host = host_with(ETH0, refused={"veth7": "ENOMEM"})
        async with watching(host) as watched:
            host.add(veth(7))
            host.change(7)
            await settle()
            assert host.attempts == ["eth0", "veth7"]
            assert watched.counts.attach_failures == 1
            del host.refused["veth7"]
            host.change(7, is_up=True)
            await settle()
            assert host.attached() == ["eth0", "veth7"]

    run(main)
    assert len(caplog.messages) == 1


def test_another_interface_in_the_place_of_one_that_could_not_be_attached() -> None:
    """It is tried in its own right, though it looks the same: after its events, and after they were lost."""

    async def main() -> None:
        host = host_with(ETH0, veth(7), refused={"veth7": "ENOMEM"}, max_events=2)
        async with watching(host) as watched:
            host.delete(7)
            host.add(veth(7))
            await settle()
            assert (host.attempts.count("veth7"), watched.counts.netlink_overruns) == (2, 0)
            host.refused.clear()
            host.delete(7)
            host.add(veth(7))
            host.change(7)
            await settle()
            assert (host.attempts.count("veth7"), watched.counts.netlink_overruns) == (3, 1)
            assert host.attached() == ["eth0", "veth7"]

    run(main)


def test_a_link_type_that_is_not_attached_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line that names the type, however often the interface changes; it is no failure."""
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with watching(host_with(ETH0, CAN0)) as watched:
            watched.host.change(CAN0.ifindex, is_up=False)
            watched.host.change(CAN0.ifindex, is_up=True)
            await settle()
            assert watched.host.attempts == ["eth0"]
            assert watched.counts.attach_failures == 0

    run(main)
    assert [message for message in caplog.messages if "can0" in message] == ["can0 is not watched: link type 280"]


def test_a_link_type_that_is_not_attached_asked_for_by_name() -> None:
    """The operator is told at once."""
    with pytest.raises(AttachError, match="link type 280"):
        start_alone(host_with(ETH0, CAN0), Selection(("eth0", "can0")))


def test_the_name_is_known_before_the_first_packet_can_be() -> None:
    """A drain may find flows of an interface while the kernel still holds the attaching task."""

    async def main() -> None:
        async with watching(host_with(ETH0)) as watched:
            watched.host.attach_s = 10
            watched.host.add(veth(7))
            await trio.sleep(5)
            assert watched.counts.attached == 1
            assert watched.name(7) == "veth7"

    run(main)


@pytest.mark.parametrize("cancelled_at_s", [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4])
def test_a_stop_at_any_moment_leaves_nothing_attached(cancelled_at_s: float) -> None:
    """Cancelled while starting, attaching, detaching or waiting: every attachment is closed, once."""
    host = host_with(ETH0, ETH1, attach_s=1)

    async def main() -> None:
        with trio.move_on_after(cancelled_at_s):
            async with trio.open_nursery() as nursery:
                args = (host, Selection(), host, InterfaceRegistry(), WatchCounts())
                nursery.start_soon(watch_interfaces, *args)
                await trio.sleep(2.25)
                host.add(veth(7))
                await trio.sleep(1)
                host.delete(2)
        assert host.attached() == []

    run(main)


INDEXES = st.integers(2, 6)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("toggle"), INDEXES, st.sampled_from(["eth", "veth", "tap"])),
        st.tuples(st.just("rename"), INDEXES, st.sampled_from(["eth", "veth", "tap"])),
        st.tuples(st.just("type"), INDEXES, st.sampled_from(["1", "280", "65534"])),
        st.tuples(st.just("settle"), INDEXES, st.just("")),
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(STEPS, st.integers(1, 20), st.sampled_from([0, 0.01]))
def test_whatever_happens_the_attachments_follow(
    steps: list[tuple[str, int, str]], max_events: int, attach_s: float
) -> None:
    """After any history, with any number of lost events, all that is selected and can be is attached and named.

    Only what was attached under a former name, and has never been away, may be attached beside it.
    """
    selection = Selection(excluded=("/tap.*/",))

    async def main() -> None:
        host = host_with(Link(100, "eth100", 1, is_up=True), max_events=max_events, attach_s=attach_s)
        async with watching(host, selection) as watched:
            for step, ifindex, value in steps:
                device = host.devices.get(ifindex)
                if step == "toggle" and device is None:
                    host.add(Link(ifindex, f"{value}{ifindex}", 1, is_up=True))
                elif step == "toggle":
                    host.delete(ifindex)
                elif step == "rename" and device is not None:
                    host.change(ifindex, name=f"{value}{ifindex}")
                elif step == "type" and device is not None:
                    host.change(ifindex, arphrd=int(value))
                elif step == "settle":
                    await trio.sleep(0.015)
            await trio.sleep(100)
            for device in host.devices.values():
                if selection.selects(device.link):
                    assert bool(device.attached) == device.link.is_attachable
                if device.attached:
                    assert watched.name(device.link.ifindex) == device.link.name
            assert watched.counts.attached == len(host.attached())
        assert host.attached() == []

    run(main)
