"""The ledger of events: it balances where every event is in one place, and not by one more or less."""

from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.layout import EventKind
from netwatch.event_ledger import EventEnds, EventLedger, KernelEvents

COUNT = st.integers(0, 1 << 62)
PLACES = ("joined", "continued", "drop_only", "unclaimed", "not_sampled", "evicted", "held")


def ends_of(**places: int) -> EventEnds:
    """Return ends whose `taken` is the sum of the places."""
    return EventEnds(taken=sum(places.values()), **places)


def ledger_of(ends: dict[EventKind, EventEnds], lost: int = 0, made_here: int = 0, unknown: int = 0) -> EventLedger:
    """Return the ledger of a run at whose end the ring is empty."""
    made = {kind: one.taken - made_here + lost for kind, one in ends.items()}
    here = dict.fromkeys(ends, made_here)
    return EventLedger(KernelEvents(made, dict.fromkeys(ends, lost)), ends, here, unknown)


def example() -> EventLedger:
    drops = ends_of(joined=700, continued=60, drop_only=5, unclaimed=4, not_sampled=3, evicted=2)
    kernel = KernelEvents(
        made={EventKind.DROP: 1_784},
        lost={EventKind.DROP: 1_020},
        thinned={EventKind.DROP: 9},
        missed={"drops": 0, "round trips": 1_234},
    )
    ends = {kind: EventEnds() for kind in EventKind} | {EventKind.DROP: drops}
    return EventLedger(kernel, ends, {EventKind.DROP: 10})


@given(st.fixed_dictionaries(dict.fromkeys(PLACES, COUNT)), st.sampled_from([-1, 1]))
def test_ends_of_a_kind(places: dict[str, int], off: int) -> None:
    """Complete where what was taken is the sum of the places, and one more or less is not."""
    ends = ends_of(**places)
    assert ends.is_complete
    assert not attrs.evolve(ends, taken=ends.taken + off).is_complete


@pytest.mark.parametrize("place", PLACES)
def test_each_place_counts(place: str) -> None:
    """An event in one more place than it was taken is noticed, whichever place that is."""
    ends = ends_of(**{place: 5})
    assert ends.is_complete
    assert not attrs.evolve(ends, **{place: 6}).is_complete


@given(
    st.dictionaries(st.sampled_from(EventKind), st.lists(COUNT, min_size=6, max_size=6)), COUNT, st.integers(0, 1000)
)
def test_balance(counts: dict[EventKind, list[int]], lost: int, made_here: int) -> None:
    """With all that was made either lost in the ring or taken, and nothing held, a run balances."""
    ends = {kind: ends_of(**dict(zip(PLACES[:6], numbers, strict=True))) for kind, numbers in counts.items()}
    ledger = ledger_of(ends, lost, made_here)
    assert ledger.balances
    assert not any(map(ledger.in_ring, ends))


@pytest.mark.parametrize("kind", EventKind)
def test_event_that_is_still_in_the_ring(kind: EventKind) -> None:
    """One that was made, not lost and not taken is in the ring: then nothing balances."""
    ledger = ledger_of({one: ends_of(joined=7) for one in EventKind})
    made = {**ledger.kernel.made, kind: 8}
    ledger = attrs.evolve(ledger, kernel=attrs.evolve(ledger.kernel, made=made))
    assert [ledger.in_ring(one) for one in EventKind] == [int(one is kind) for one in EventKind]
    assert not ledger.balances


@pytest.mark.parametrize("kind", EventKind)
def test_event_taken_that_nobody_made(kind: EventKind) -> None:
    """More taken than made is a bug as well, in whichever kind."""
    ends = {one: ends_of(joined=7) for one in EventKind}
    ledger = attrs.evolve(ledger_of(ends), ends=ends | {kind: ends_of(joined=8)})
    assert ledger.in_ring(kind) == -1
    assert not ledger.balances


def test_event_that_is_held() -> None:
    """At the end of a run nothing waits any more."""
    assert not ledger_of({EventKind.RTT: ends_of(joined=3, held=1)}).balances


def test_event_in_no_place() -> None:
    """One that was taken and ended nowhere is noticed, although the ring is empty."""
    assert not ledger_of({EventKind.RTT: EventEnds(taken=4, joined=3)}).balances


def test_unknown_record() -> None:
    """A record that is no event is a bug."""
    assert not ledger_of({EventKind.RTT: ends_of(joined=3)}, unknown=1).balances


def test_thinned_events_were_never_made() -> None:
    """What a program thinned out or missed is told and belongs to no sum."""
    ledger = ledger_of({EventKind.RTT: ends_of(joined=3)})
    kernel = attrs.evolve(ledger.kernel, thinned={EventKind.RTT: 1_000}, missed={"rtt": 7})
    assert attrs.evolve(ledger, kernel=kernel).balances


def test_events_made_here_never_were_in_the_ring() -> None:
    """Merged drops and unanswered questions are made and taken, and none of them is missing from the ring."""
    ledger = EventLedger(KernelEvents(), {EventKind.DNS: ends_of(joined=5)}, {EventKind.DNS: 5})
    assert (ledger.in_ring(EventKind.DNS), ledger.balances) == (0, True)


def test_json() -> None:
    """Every kind with all its places, so that a reader can do the sums; only programs that missed something."""
    told = json.loads(json.dumps(example().as_json()))
    assert [one["kind"] for one in told["kinds"]] == ["drop", "rtt", "dns", "tcp", "owner", "hook", "flow"]
    drops = told["kinds"][0]
    assert drops == {
        "kind": "drop",
        "made": 1_794,  # 10 of them never were in the ring
        "lost": 1_020,
        "thinned": 9,
        "made_here": 10,
        "taken": 774,
        "joined": 700,
        "continued": 60,
        "drop_only": 5,
        "unclaimed": 4,
        "not_sampled": 3,
        "evicted": 2,
        "held": 0,
    }
    assert drops["taken"] == sum(drops[place] for place in PLACES)
    assert drops["made"] - drops["lost"] == drops["taken"]
    assert (told["missed"], told["unknown"], told["balances"]) == ({"round trips": 1_234}, 0, True)


def test_text() -> None:
    """A line for a kind that occurred and none for the others, losses together, the verdict last."""
    title, drops, missed, verdict = example().as_text().splitlines()
    assert title.split() == ["events", "made", "thinned", "joined", "continued", "drop-only", "unclaimed", "lost"]
    assert drops.split() == ["drops", "1,794", "9", "700", "60", "5", "7", "1,022"]
    assert len(title) == len(drops)
    assert missed == "  missed: program round trips was running already: 1,234"
    assert verdict == "  events: balance"


def test_text_of_a_run_that_does_not_balance() -> None:
    """It says so, and cannot be read past."""
    text = attrs.evolve(example(), unknown=1).as_text()
    assert text.splitlines()[-1] == "  events: DO NOT BALANCE"


def test_nothing_happened() -> None:
    """A run without events balances, and has no line of numbers."""
    ledger = EventLedger(KernelEvents(), {kind: EventEnds() for kind in EventKind})
    assert ledger.balances
    assert len(ledger.as_text().splitlines()) == 2
