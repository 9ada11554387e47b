"""Wait for what tells nobody when it happens: the kernel, another process.

Law: looks, rests for PAUSE_S, looks again, and gives up at its timeout. No test passes or fails by how fast the machine
is: PATIENCE_S only ends one that would hang.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 120.0
_PAUSE_S = 0.01
Found = TypeVar("Found")


def look_until(look: Callable[[], Found], is_enough: Callable[[Found], bool], timeout_s: float = PATIENCE_S) -> Found:
    """Look until it is enough or the timeout has come, and return what was found last."""
    deadline = time.monotonic() + timeout_s
    while not is_enough(found := look()) and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    return found
