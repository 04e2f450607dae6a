"""What work leaves for the collector, apart from what others in this process left."""

import gc
from collections.abc import Awaitable


async def garbage_of(work: Awaitable[None]) -> int:
    """How many objects only the collector frees once the work is done."""
    while gc.collect():  # to free some is what makes others garbage
        pass
    gc.disable()
    try:
        await work
        return gc.collect()
    finally:
        gc.enable()
