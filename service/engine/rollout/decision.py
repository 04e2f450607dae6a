"""Decides whether a candidate answers as the serving version does, from how many of their answers differ.

Wald's sequential probability ratio test (The Annals of Mathematical Statistics 16, 1945): it may be asked after every
answer, and is still wrong in at most `ERROR_RATE` of the cases.
"""

import math
from typing import Literal

Decision = Literal["undecided", "passed", "stopped"]
# Of passing a candidate of which the share differs, and of stopping one of which a quarter of it does.
ERROR_RATE = 0.01
TOLERATED = 0.25
BOUND = math.log((1 - ERROR_RATE) / ERROR_RATE)


def decide(compared: int, different: int, share: float) -> Decision:
    """Whether `different` of `compared` answers are more than a share of them: stopped, or certainly less: passed."""
    tolerated = TOLERATED * share
    ratio = different * math.log(share / tolerated)
    ratio += (compared - different) * (math.log1p(-share) - math.log1p(-tolerated))
    if ratio >= BOUND:
        return "stopped"
    return "passed" if ratio <= -BOUND else "undecided"
