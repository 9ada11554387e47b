"""Attachments on the real kernel: ours come and go, those of others stay as they were."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest
import trio

from netwatch.core.direction import Direction
from netwatch.kernel.attach import TcxAttachment, attach_tcx, supports_tcx
from netwatch.kernel.syscall import enable_stats
from netwatch.kernel.tc_claim import lock
from tests.kernel.bare_programs import (
    TCX_EGRESS,
    TCX_INGRESS,
    TCX_NEXT,
    TCX_PASS,
    add_foreign_filter,
    foreign_link,
    foreign_program,
    qdiscs,
    runs_of,
    tc_filters,
    tcx_programs,
)
from tests.kernel.bystander import bystander
from tests.kernel.hosts import Interface, Namespace
from tests.kernel.watcher import Watcher

pytestmark = pytest.mark.kernel

FRAME = bytes(12) + b"\x08\x00" + bytes(50)
PRIME = 101


@pytest.fixture
def cable(namespaces: Callable[[], Namespace]) -> tuple[Interface, Interface]:
    """Return `near0`, which the watcher watches, and `far0` in a namespace of its own."""
    return namespaces().veth("near0", namespaces(), "far0")


@pytest.fixture
def near(cable: tuple[Interface, Interface]) -> Interface:
    """Return the watched end."""
    return cable[0]


@pytest.fixture
def counting_runs() -> Iterator[None]:
    """Make the kernel count runs of programs."""
    stats_fd = enable_stats()
    yield
    os.close(stats_fd)


def attached(near: Interface, mode: str, *patterns: str) -> Watcher:
    return Watcher(near.namespace, mode, *(patterns or ("near0",)))


def ours(filters: list[dict[str, object]]) -> list[str]:
    names = [str(one["options"].get("bpf_name", "")) for one in filters]  # type: ignore[attr-defined]
    return [name for name in names if name.startswith("netwatch-")]


def test_tcx_takes_both_directions_and_gives_them_back(near: Interface) -> None:
    """Ingress and egress have each its own program; nothing is there afterwards, and no qdisc ever was."""
    with attached(near, "tcx") as watcher:
        programs = watcher.wait("loaded")
        watcher.wait("started")
        assert tcx_programs(near, TCX_INGRESS) == [programs["ingress_ethernet"]]
        assert tcx_programs(near, TCX_EGRESS) == [programs["egress_ethernet"]]
        assert qdiscs(near) == ["noqueue"]
    assert tcx_programs(near, TCX_INGRESS) == tcx_programs(near, TCX_EGRESS) == []


def test_an_interface_without_link_header_gets_the_other_programs(namespaces: Callable[[], Namespace]) -> None:
    """Packets of a tun device begin at the network header."""
    namespace = namespaces()
    namespace.run("ip", "tuntap", "add", "tun0", "mode", "tun")
    tun = namespace.interface("tun0")
    with attached(tun, "tcx", "tun0") as watcher:
        programs = watcher.wait("loaded")
        watcher.wait("started")
        assert tcx_programs(tun, TCX_INGRESS) == [programs["ingress_ip"]]
        assert tcx_programs(tun, TCX_EGRESS) == [programs["egress_ip"]]


def test_auto_takes_tcx_where_it_is(near: Interface) -> None:
    """No qdisc and no filter comes with it."""
    with attached(near, "auto") as watcher:
        programs = watcher.wait("loaded")
        watcher.wait("started")
        assert tcx_programs(near, TCX_INGRESS) == [programs["ingress_ethernet"]]
        assert qdiscs(near) == ["noqueue"]


def test_foreign_tcx_programs_stay_as_they_were(near: Interface) -> None:
    """Those before and after us keep their order; ours stands first while it is there."""
    with (
        foreign_program(TCX_NEXT) as first,
        foreign_program(TCX_PASS) as second,
        foreign_link(first, near, TCX_INGRESS),
        foreign_link(second, near, TCX_INGRESS),
    ):
        before = tcx_programs(near, TCX_INGRESS)
        with attached(near, "tcx") as watcher:
            programs = watcher.wait("loaded")
            watcher.wait("started")
            assert tcx_programs(near, TCX_INGRESS) == [programs["ingress_ethernet"], *before]
        assert tcx_programs(near, TCX_INGRESS) == before == [first.id, second.id]


@pytest.mark.usefixtures("counting_runs")
def test_a_foreign_program_that_ends_the_chain_hides_nothing(cable: tuple[Interface, Interface]) -> None:
    """A prime number of frames comes to both: to ours, which is first, and on to the other."""
    near, far = cable
    with (
        foreign_program(TCX_PASS) as other,
        foreign_link(other, near, TCX_INGRESS),
        attached(near, "tcx") as watcher,
    ):
        program = watcher.wait("loaded")["ingress_ethernet"]
        watcher.wait("started")
        runs = runs_of(program), runs_of(other.id)
        far.send([FRAME] * PRIME)
        assert (runs_of(program) - runs[0], runs_of(other.id) - runs[1]) == (PRIME, PRIME)


@pytest.mark.parametrize("mode", ["tcx", "tc"])
def test_two_agents_side_by_side(near: Interface, mode: str) -> None:
    """Each attaches, each leaves the other alone, whoever goes first."""
    with attached(near, mode) as one, attached(near, mode) as two:
        programs = [watcher.wait("loaded")["ingress_ethernet"] for watcher in (one, two)]
        for watcher in (one, two):
            watcher.wait("started")
        assert sorted(ingress(near, mode)) == sorted(programs)
        one.stop()
        assert ingress(near, mode) == programs[1:]
        two.stop()
        assert ingress(near, mode) == []
        assert qdiscs(near) == ["noqueue"]


def ingress(interface: Interface, mode: str) -> list[int]:
    """Return the identifiers of all programs that see incoming packets."""
    if mode == "tcx":
        return tcx_programs(interface, TCX_INGRESS)
    return [one["options"]["prog"]["id"] for one in tc_filters(interface, "ingress")]


def test_sigkill_leaves_no_tcx_link(near: Interface) -> None:
    """The links go with the process; what others have attached does not."""
    with foreign_program(TCX_PASS) as other, foreign_link(other, near, TCX_INGRESS):
        with attached(near, "tcx") as watcher:
            watcher.wait("started")
            watcher.kill()
        assert tcx_programs(near, TCX_INGRESS) == [other.id]
        assert tcx_programs(near, TCX_EGRESS) == []


def test_a_hook_that_is_full(near: Interface) -> None:
    """TCX takes 63 programs: the refusal says so, with the remedy, and nothing of ours stays in the other direction."""
    with contextlib.ExitStack() as stack:
        for _ in range(63):
            program = stack.enter_context(foreign_program(TCX_NEXT))
            stack.enter_context(foreign_link(program, near, TCX_EGRESS))
        complaint = "cannot attach to near0 (tcx egress): ERANGE; 63 programs are attached there"
        with attached(near, "tcx", "near0") as watcher:
            refused = watcher.wait("refused", "AttachError")
            assert refused["text"].startswith(complaint)
            assert refused["exit_code"] == 6
        with attached(near, "tcx", "/near0|lo/") as watcher:
            assert watcher.wait("log", "WARNING")["text"].startswith(complaint)
            assert watcher.wait("started")["names"] == ["lo"]
            assert tcx_programs(near, TCX_INGRESS) == []
        assert len(tcx_programs(near, TCX_EGRESS)) == 63


def test_a_tcx_attachment_knows_that_its_interface_has_gone(near: Interface) -> None:
    """Also where another interface has the same index and name by then."""
    with foreign_program(TCX_NEXT) as program:
        with near.namespace.enter():
            attachment = TcxAttachment((attach_tcx(program.fd, near.ifindex, Direction.INGRESS),))
        assert trio.run(attachment.is_attached)
        near.namespace.run("ip", "link", "del", "near0")
        near.namespace.run("ip", "link", "add", "near0", "index", str(near.ifindex), "type", "bridge")
        assert not trio.run(attachment.is_attached)
        trio.run(attachment.aclose)


def test_the_kernel_is_asked_for_tcx_without_attaching() -> None:
    """The kernel of these tests has it; how one without answers is told in attach.py."""
    with foreign_program(TCX_NEXT) as program:
        assert supports_tcx(program.fd)


def test_clsact_is_made_and_removed(near: Interface) -> None:
    """Where nobody else uses traffic control it is afterwards as before."""
    with attached(near, "tc") as watcher:
        programs = watcher.wait("loaded")
        watcher.wait("started")
        for direction in ("ingress", "egress"):
            (ours_alone,) = tc_filters(near, direction)
            assert (ours_alone["pref"], ours_alone["protocol"]) == (1, "all")
            assert ours_alone["options"]["direct-action"]
            assert ours_alone["options"]["prog"]["id"] == programs[f"{direction}_ethernet"]
        assert qdiscs(near) == ["noqueue", "clsact"]
    assert qdiscs(near) == ["noqueue"]


def test_a_foreign_clsact_qdisc_survives_even_if_it_is_empty(near: Interface) -> None:
    """Whoever made it will want it."""
    near.namespace.run("tc", "qdisc", "add", "dev", "near0", "clsact")
    with attached(near, "tc") as watcher:
        watcher.wait("started")
        assert ours(tc_filters(near, "ingress"))
    assert qdiscs(near) == ["noqueue", "clsact"]
    assert tc_filters(near, "ingress") == tc_filters(near, "egress") == []


@pytest.mark.usefixtures("counting_runs")
def test_a_foreign_filter_that_ends_the_chain_stays_and_hides_nothing(cable: tuple[Interface, Interface]) -> None:
    """At preference 1, handle 1, where most agents put theirs: ours runs before it and replaces nothing."""
    near, far = cable
    near.namespace.run("tc", "qdisc", "add", "dev", "near0", "clsact")
    with foreign_program(TCX_PASS) as other:
        add_foreign_filter(near, other, "pref", "1", "handle", "1")
        before = tc_filters(near, "ingress")
        assert len(before) == 1
        with attached(near, "tc") as watcher:
            program = watcher.wait("loaded")["ingress_ethernet"]
            watcher.wait("started")
            assert tc_filters(near, "ingress")[1:] == before
            runs = runs_of(program), runs_of(other.id)
            far.send([FRAME] * PRIME)
            assert (runs_of(program) - runs[0], runs_of(other.id) - runs[1]) == (PRIME, PRIME)
        assert tc_filters(near, "ingress") == before


def test_a_filter_that_others_add_to_our_qdisc_keeps_it(near: Interface) -> None:
    """The qdisc is ours, but no longer ours alone."""
    with foreign_program(TCX_PASS) as other:
        with attached(near, "tc") as watcher:
            watcher.wait("started")
            add_foreign_filter(near, other, "pref", "7")
        (left,) = tc_filters(near, "ingress")
        assert left["options"]["prog"]["id"] == other.id
        assert qdiscs(near) == ["noqueue", "clsact"]


def test_preference_1_is_held_by_another_kind_of_filter(near: Interface) -> None:
    """Ours takes the next one, and says that it may not see everything."""
    near.namespace.run("tc", "qdisc", "add", "dev", "near0", "clsact")
    u32 = ("protocol", "ip", "u32", "match", "u32", "0", "0", "flowid", "1:1")
    near.namespace.run("tc", "filter", "add", "dev", "near0", "ingress", "pref", "1", *u32)
    before = tc_filters(near, "ingress")
    with attached(near, "tc") as watcher:
        warned = watcher.wait("log", "WARNING")
        watcher.wait("started")
        assert "near0: filters of others run first (tc filter show dev near0 ingress)" in warned["text"]
        assert [one["pref"] for one in tc_filters(near, "ingress") if one["kind"] == "bpf"] == [2]
    assert tc_filters(near, "ingress") == before


def test_an_ingress_qdisc_stands_in_the_place_of_clsact(near: Interface) -> None:
    """Filters for egress would run for incoming packets there: refused, and the qdisc stays."""
    near.namespace.run("tc", "qdisc", "add", "dev", "near0", "ingress")
    with attached(near, "tc") as watcher:
        refused = watcher.wait("refused", "AttachError")
        assert "another program's ingress qdisc stands in the place of clsact" in refused["text"]
    assert qdiscs(near) == ["noqueue", "ingress"]
    assert tc_filters(near, "ingress") == []


def test_others_delete_our_filters(near: Interface) -> None:
    """Then there is nothing to detach; their filter at the same preference is not taken for ours."""
    near.namespace.run("tc", "qdisc", "add", "dev", "near0", "clsact")
    with foreign_program(TCX_PASS) as other, attached(near, "tc") as watcher:
        watcher.wait("started")
        near.namespace.run("tc", "filter", "del", "dev", "near0", "ingress", "pref", "1")
        add_foreign_filter(near, other, "pref", "1")
        before = tc_filters(near, "ingress")
        watcher.stop()
        assert not [told for told in watcher.told if told["event"] == "log"]
        assert tc_filters(near, "ingress") == before
        assert tc_filters(near, "egress") == []


def test_agents_that_come_and_go_at_the_same_time(near: Interface) -> None:
    """They start and stop together on the same interface: none loses its filters, and nothing is left."""
    with contextlib.ExitStack() as stack:
        watchers = [stack.enter_context(attached(near, "tc")) for _ in range(4)]
        programs = [watcher.wait("loaded")["egress_ethernet"] for watcher in watchers]
        for watcher in watchers:
            watcher.wait("started")
        assert sorted(one["options"]["prog"]["id"] for one in tc_filters(near, "egress")) == sorted(programs)
        for watcher in watchers:
            watcher.terminate()
        for watcher in watchers:
            watcher.wait("stopped")
        assert not [told for watcher in watchers for told in watcher.told if told["event"] == "log"]
    assert qdiscs(near) == ["noqueue"]


def test_a_lock_that_nobody_gives_back_holds_an_agent_up_for_a_second(near: Interface) -> None:
    """An agent that was stopped in the middle of its work does not stop the next one."""
    with near.namespace.enter(), lock(), attached(near, "tc") as watcher:
        watcher.wait("started")
        assert ours(tc_filters(near, "ingress"))


@pytest.mark.parametrize("mode", ["tcx", "tc", "auto"])
def test_filters_of_a_killed_agent_are_removed_by_the_next(near: Interface, mode: str) -> None:
    """Together with the qdisc that the dead one had made, and however the next one attaches."""
    with attached(near, "tc") as killed:
        killed.wait("started")
        killed.kill_with_guardian()
    (stale,) = ours(tc_filters(near, "ingress"))
    with attached(near, mode) as next_one:
        assert next_one.wait("log", "INFO")["text"] == "removed 2 filters of a netwatch that was killed"
        next_one.wait("started")
        assert stale not in ours(tc_filters(near, "ingress") + tc_filters(near, "egress"))
        assert qdiscs(near) == ["noqueue"] + ["clsact"] * (mode == "tc")
    assert qdiscs(near) == ["noqueue"]


@pytest.mark.parametrize("mode", ["tcx", "tc"])
def test_filters_of_the_living_stay_when_those_of_the_dead_go(near: Interface, mode: str) -> None:
    """Netwatch's and those of others, on the qdisc that the dead one had made."""
    with foreign_program(TCX_PASS) as other:
        with attached(near, "tc") as killed, attached(near, "tc") as living:
            killed.wait("started")
            living.wait("started")
            add_foreign_filter(near, other, "pref", "7")
            killed.kill_with_guardian()
            assert len(ours(tc_filters(near, "ingress"))) == 2
            with attached(near, mode) as next_one:
                assert next_one.wait("log", "INFO")["text"] == "removed 2 filters of a netwatch that was killed"
                next_one.wait("started")
            (left, foreign) = tc_filters(near, "ingress")
            assert left["options"]["prog"]["id"] == living.wait("loaded")["ingress_ethernet"]
            assert foreign["options"]["prog"]["id"] == other.id
        assert [one["options"]["prog"]["id"] for one in tc_filters(near, "ingress")] == [other.id]
        assert tc_filters(near, "egress") == []


def test_a_user_without_rights_cannot_keep_filters_of_a_killed_agent(near: Interface) -> None:
    """All that showed that the owner lives, or that its filters are being worked on, is taken by then."""
    with attached(near, "tc") as killed:
        killed.wait("started")
        killed.kill_with_guardian()
    (name,) = ours(tc_filters(near, "ingress"))
    port = int(name.split("-")[1], 16)
    with bystander(near.namespace, port) as told, attached(near, "tcx") as next_one:
        assert {"lock", "port", "name"} <= {*told["got"]}
        assert next_one.wait("log", "INFO")["text"] == "removed 2 filters of a netwatch that was killed"
        next_one.wait("started")
        assert qdiscs(near) == ["noqueue"]


def test_a_filter_whose_name_only_resembles_ours_is_left_alone(near: Interface) -> None:
    """Nobody but netwatch writes names of exactly its form, so no other is taken for a dead agent's."""
    near.namespace.run("tc", "qdisc", "add", "dev", "near0", "clsact")
    with foreign_program(TCX_PASS) as other:
        add_foreign_filter(near, other, "pref", "5", name="netwatch-0123abcd")
        before = tc_filters(near, "ingress")
        assert before[0]["options"]["bpf_name"].startswith("netwatch-0123abcd:[")
        with attached(near, "tc") as watcher:
            watcher.wait("started")
        assert tc_filters(near, "ingress") == before
