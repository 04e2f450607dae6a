"""Counts the objects of a coroutine that only the cyclic garbage collector frees."""

import gc
from collections.abc import Awaitable


async def count_cyclic_garbage(awaitable: Awaitable[None]) -> int:
    """Await it and return the number of objects that the collector frees afterwards."""
    # Freeing objects can make other objects garbage, so one collection is not enough.
    while gc.collect():
        pass
    gc.disable()
    try:
        await awaitable
        return gc.collect()
    finally:
        gc.enable()
