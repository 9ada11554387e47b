"""Counts and times in a few characters, for columns.

Law: the last digit shown is right, and a larger number never looks like a smaller one.
Neighbours: `core/flow_cells.py`, `core/notes.py` and `core/fact_cells.py` show them.
"""

from __future__ import annotations

_NS_PER_US, _NS_PER_MS = 1_000, 1_000_000


def short_count(count: int) -> str:
    """Return a count in at most five characters: 999, 1.2k, 34.5M; powers of 1,000."""
    if count < 1000:
        return str(count)
    scaled = float(count)
    for unit in "kMGTPE":
        scaled /= 1000
        if scaled < 99.95:
            return f"{scaled:.1f}{unit}"
        if scaled < 999.5:
            return f"{scaled:.0f}{unit}"
    return ">999E"


def short_duration(duration_ms: int) -> str:
    """Return a duration in at most six characters: 12ms, 3.4s, 5m06s, 7h08m, 9d10h."""
    if duration_ms < 1000:
        return f"{max(duration_ms, 0)}ms"
    if duration_ms < 60_000:
        return f"{duration_ms // 1000}.{duration_ms % 1000 // 100}s"
    minutes, seconds = divmod(duration_ms // 1000, 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02}h" if days < 100 else f"{min(days, 99_999)}d"


def short_time(time_ns: int) -> str:
    """Return a time that may be very short in at most six characters: 85µs, 1.2ms, 20ms, 3.4s."""
    if time_ns < _NS_PER_US:
        return f"{time_ns}ns"
    if time_ns < _NS_PER_MS:
        return f"{time_ns // _NS_PER_US}µs"
    if time_ns < 10 * _NS_PER_MS:
        return f"{time_ns // _NS_PER_MS}.{time_ns % _NS_PER_MS // (_NS_PER_MS // 10)}ms"
    return short_duration(time_ns // _NS_PER_MS)
