"""Choose how the programs are attached: TCX where the kernel has it, clsact filters elsewhere.

Law: the kernel is asked once, at the start; every interface is attached the same way.
Neighbours: `attach.py` and `tc.py` attach, `watch.py` is given the result.
"""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

from netwatch.core.direction import Direction
from netwatch.errors import KernelUnsupported
from netwatch.kernel.attach import Attacher, HookPrograms, TcxAttacher, supports_tcx
from netwatch.kernel.tc import open_tc_attacher


@asynccontextmanager
async def open_attacher(
    mode: Literal["auto", "tcx", "tc"], programs: HookPrograms, directions: Sequence[Direction] = tuple(Direction)
) -> AsyncIterator[Attacher]:
    """Open the way to attach that the setting `attach` asks for; close every attachment before leaving the block.

    Raises KernelUnsupported for `tcx` on a kernel without it, DependencyMissing for clsact without pyroute2.
    """
    if mode != "tc" and supports_tcx(programs.ingress_ethernet):
        yield TcxAttacher(programs, directions)
    elif mode == "tcx":
        found = f"not in Linux {platform.release()}"
        raise KernelUnsupported("TCX", found, "use Linux 6.6 or newer, or attach = 'tc'")
    else:
        async with open_tc_attacher(programs, directions) as attacher:
            yield attacher
