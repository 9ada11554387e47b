"""Choose how the programs are attached: TCX where the kernel has it, clsact filters elsewhere.

Law: the kernel is asked once, at the start; every interface is attached the same way. What a killed run left is removed
before, whichever way that one attached and this one will.
Neighbours: `attach.py` and `tc.py` attach, `tc_owner.py` knows what was left, `watch.py` is given the result.
"""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import trio

from netwatch.core.direction import Direction
from netwatch.errors import KernelUnsupported
from netwatch.kernel.attach import Attacher, HookPrograms, TcxAttacher, supports_tcx
from netwatch.kernel.tc import open_tc_attacher
from netwatch.kernel.tc_owner import remove_stale_filters


@asynccontextmanager
async def open_attacher(
    mode: Literal["auto", "tcx", "tc"], programs: HookPrograms, directions: Sequence[Direction] = tuple(Direction)
) -> AsyncIterator[Attacher]:
    """Open the way to attach that the setting `attach` asks for; close every attachment before leaving the block.

    Raises KernelUnsupported for `tcx` on a kernel without it, PermissionMissing for clsact without CAP_NET_ADMIN.
    """
    await trio.to_thread.run_sync(remove_stale_filters)
    if mode != "tc" and supports_tcx(programs.ingress_ethernet):
        yield TcxAttacher(programs, directions)
    elif mode == "tcx":
        found = f"not in Linux {platform.release()}"
        raise KernelUnsupported("TCX", found, "use Linux 6.6 or newer, or attach = 'tc'")
    else:
        async with open_tc_attacher(programs, directions) as attacher:
            yield attacher
