"""Tie the life of a process to that of its parent, where the kernel can (Linux).

Invariant: a system without prctl starts and serves as before; only then may a process outlive a killed parent.
"""

import ctypes

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def signal_on_parent_death(number: int) -> bool:
    """Have the kernel send this signal to this process when its parent ends; return whether the kernel can."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl is not None and prctl(PR_SET_PDEATHSIG, number) == 0
