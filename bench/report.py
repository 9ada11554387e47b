"""Results as a table, as Markdown, and as JSON that can be read back.

Law: every figure stands with its unit, its spread and its goal, every table with its machine; what was lost stands in
the same table as what it cost.
Neighbours: `__main__.py` prints and writes; README.md holds a Markdown table made here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import attrs

from bench.machine import Machine
from bench.measure import Quantity, Result, ratio

_HEADER = ("what", "unit", "goal", "netwatch", "least to most", "peer", "least to most", "ratio")
_OURS = "netwatch"


@attrs.frozen
class Report:
    """All results of a run: where, when (ISO 8601), by which command, in how many rounds.

    `loop_ns` is how fast the processor was, before each benchmark and at the end (`machine.loop_ns`).
    """

    machine: Machine
    began: str
    command: str
    rounds: int
    loop_ns: Sequence[float]
    results: Sequence[Result]


def as_json(report: Report) -> str:
    """Return the report with all its samples."""
    return json.dumps(attrs.asdict(report), indent=1) + "\n"


def from_json(text: str) -> Report:
    """Return the report that `as_json` wrote."""
    content = json.loads(text)
    results = [
        Result(Quantity(**result["quantity"]), result["agent"], tuple(result["samples"]))
        for result in content.pop("results")
    ]
    return Report(**content | {"machine": Machine(**content["machine"]), "results": results})


def as_text(report: Report) -> str:
    """Return a table for a terminal, under what it was measured on."""
    rows = [_HEADER, *_rows(report.results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_origin(report)]
    for row in rows:
        first, *others = (
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join((first, *others)).rstrip())
    return "\n".join(lines) + "\n"


def as_markdown(report: Report) -> str:
    """Return a table for a Markdown file, under what it was measured on."""
    lines = [_origin(report), "", _markdown_row(_HEADER), _markdown_row(["---", "---", *["---:"] * 6])]
    lines += map(_markdown_row, _rows(report.results))
    return "\n".join(lines) + "\n"


def _origin(report: Report) -> str:
    speed = f"{number(min(report.loop_ns))} to {number(max(report.loop_ns))} ns"
    return (
        f"{report.machine}; one turn of an empty Python loop took {speed}. "
        f"{report.began}, {report.rounds} rounds: `{report.command}`"
    )


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    ours = {result.quantity: result for result in results if result.agent == _OURS}
    theirs = {result.quantity: result for result in results if result.agent != _OURS}
    # A dict, because it keeps the order.
    quantities = dict.fromkeys(result.quantity for result in results)
    return [_row(quantity, ours.get(quantity), theirs.get(quantity)) for quantity in quantities]


def _row(quantity: Quantity, ours: Result | None, theirs: Result | None) -> tuple[str, ...]:
    ratio_text = ""
    if ours and theirs and (compared := ratio(ours, theirs)) is not None:
        ratio_text = f"{compared:.2f}"
    name = f"{quantity.benchmark}: {quantity.name}"
    return name, quantity.unit, _goal(quantity, ours), *_cells(ours), *_cells(theirs), ratio_text


def _goal(quantity: Quantity, ours: Result | None) -> str:
    if quantity.goal is None:
        return ""
    verdict = {True: " met", False: " MISSED", None: ""}[ours.meets_goal if ours else None]
    return f"{number(quantity.goal)}{verdict}"


def _cells(result: Result | None) -> tuple[str, str]:
    if result is None:
        return "", ""
    return number(result.median), f"{number(result.least)} to {number(result.most)}"


def number(value: float) -> str:
    """Return a number with three significant digits, or all of a larger one."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
