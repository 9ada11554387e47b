"""What is loaded for which enrichment."""

from __future__ import annotations

from typing import get_args

import pytest

from netwatch import config
from netwatch.kernel.hooks import ENRICHMENTS, HOOKS, PACKET_HOOKS, HookKind, hooks_for
from netwatch.kernel.program import ProgramSettings


def test_the_words_of_the_setting() -> None:
    """The setting and the programs have the same words."""
    assert get_args(config.Enrichment) == ENRICHMENTS


def test_nothing_is_switched_on() -> None:
    """Only packets are counted: no tracepoint and no cgroup hook is loaded, and the ring is as small as one can be."""
    assert tuple(hooks_for([])) == PACKET_HOOKS
    defines = ProgramSettings(64, 64).defines()
    assert {name: value for name, value in defines.items() if name.startswith("ENRICH_")} == {
        f"ENRICH_{word.upper()}": 0 for word in ENRICHMENTS
    }
    assert defines["RING_PAGES"] == 16


@pytest.mark.parametrize(
    ("word", "programs"),
    [
        ("drops", {"drop"}),
        ("rtt", {"tcp_state"}),
        ("dns", set()),
        ("tcp", {"tcp_state", "tcp_retransmit", "tcp_reset_sent", "tcp_reset_received"}),
        ("process", {"tcp_state", "socket"}),
        ("interfaces", set()),
        ("overflow", set()),
        ("nat", set()),
    ],
)
def test_one_switch(word: str, programs: set[str]) -> None:
    """A switch loads what it needs and nothing else, and is compiled in alone."""
    assert set(hooks_for([word])) == {*PACKET_HOOKS, *programs}
    defines = ProgramSettings(64, 64, enrich=[word]).defines()
    assert [name for name in ENRICHMENTS if defines[f"ENRICH_{name.upper()}"]] == [word]


def test_everything() -> None:
    """With all switches on, each program is loaded, and the kernel keeps a name of its own for each."""
    assert set(hooks_for(ENRICHMENTS)) == set(HOOKS)
    functions = [hook.function[:15] for hook in HOOKS.values() if hook.kind is not HookKind.PACKET]
    assert len(set(functions)) == len(functions)
