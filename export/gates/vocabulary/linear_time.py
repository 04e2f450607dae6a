"""A tokenizer takes linear time: a text of any kind, sixteen times as long, takes about sixteen times as long.

A client chooses its text, so a pattern that backtracks would let one text occupy a processor for seconds.
"""

from itertools import product

from tokenizers import Tokenizer

from service.engine.sessions.tokenizer_cost import (
    BASE_S,
    SECONDS_PER_CHAR,
    adversarial_runs,
    encoding_seconds,
    measure_cost,
)

SIZES = (2_048, 32_768)
SMALL_REPEATS = 4
MAX_GROWTH = 4  # of the time per character between the two sizes; linear tokenizers have 1 to 2
# Shorter times are mostly overhead.
MIN_SECONDS = 0.005


def check_linear_time(tokenizer: Tokenizer, content: str) -> None:
    """Raises ValueError that names the adversarial text, if one takes more than linear time."""
    measure_cost(tokenizer, content)
    small, large = SIZES
    runs, fragments = adversarial_runs(content)
    for run, end in product(runs, ("", fragments)):
        limit_s = BASE_S + SECONDS_PER_CHAR * large
        for _ in range(2):
            # The host of a virtual machine may take time away that counts as CPU time, which is much of a short one.
            small_s = min(encoding_seconds(tokenizer, run, end, small, limit_s=limit_s) for _ in range(SMALL_REPEATS))
            large_s = encoding_seconds(tokenizer, run, end, large, limit_s=limit_s)
            growth = large_s / small_s / (large / small)
            if large_s <= MIN_SECONDS or growth <= MAX_GROWTH:
                break
        else:
            raise ValueError(
                f"takes {large_s:.2g} s for {large:,} characters of {run!r}, {growth:.0f} times as long for each as in "
                f"{small:,}: expected linear time; look for `.*` or nested repetitions in its patterns"
            )
