"""The time that a tokenizer takes, measured on adversarial texts.

A regular expression that backtracks takes quadratic or exponential time on some texts. The adversarial texts are runs
of one character or of a fragment of the tokenizer's own patterns, followed by a character that ends the run and by all
fragments: the library skips a pattern that has a literal part which the text lacks. Time is CPU time of the calling
thread, so other work on the machine does not count.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import Tokenizer

from service.engine.sessions.tokenizer import encode_texts, first_line, read_patterns

# The longest that texts of a request may be tokenized on an event loop.
MAX_INLINE_S = 0.001
# A run may take this long, whatever its size, and this much more for each character: ten times the slowest tokenizers.
BASE_S, SECONDS_PER_CHAR = 0.05, 5e-5
MAX_END = 500
# Exponential time shows at the small sizes, before a run takes long.
SIZES = (16, 20, 24, 32, 64, 512, 2_048)
RUNS = ("a", "Z", "1", " ", "\n", "\t", "!", "-", "_", ".", "'", "&", "<", "#", "\\", "é", "\u0301", "\ufdfa", "漢",
        "😀", "a ", "a1", "'s", "a!")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TokenizerCost:
    """The cost of the slowest run at the largest size, in CPU time."""

    seconds_per_byte: float
    run: str

    @property
    def max_inline_bytes(self) -> int:
        """The size of the texts that are certain to take less than MAX_INLINE_S."""
        return int(MAX_INLINE_S / self.seconds_per_byte)


def measure_cost(tokenizer: Tokenizer, content: str) -> TokenizerCost:
    """Measure the tokenizer of this tokenizer.json; raises ValueError if a run takes too long or makes it fail."""
    costs = []
    runs, end = adversarial_runs(content)
    for run in runs:
        for size in SIZES:
            seconds = encoding_seconds(tokenizer, run, end, size, limit_s=BASE_S + SECONDS_PER_CHAR * size)
        num_bytes = len(adversarial_text(run, end, SIZES[-1]).encode())
        costs.append(TokenizerCost(seconds_per_byte=seconds / num_bytes, run=run))
    return max(costs, key=lambda cost: cost.seconds_per_byte)


def adversarial_runs(content: str) -> tuple[list[str], str]:
    """Return what the adversarial texts repeat, and what follows the repetitions.

    They repeat characters of many kinds and fragments of the tokenizer's patterns; all fragments follow on a new line.
    """
    fragments = [run for pattern in read_patterns(content) for run in _fragments(pattern)]
    return list(dict.fromkeys([*RUNS, *fragments])), "\n" + " ".join(fragments)[:MAX_END]


def adversarial_text(run: str, end: str, size: int) -> str:
    """Return `size` characters of the run, then a character of another kind and `end`."""
    breaker = "!" if run[-1].isalnum() or run[-1].isspace() else "a"
    return f"{(run * size)[:size]}{breaker}{end}"


def encoding_seconds(tokenizer: Tokenizer, run: str, end: str, size: int, *, limit_s: float) -> float:
    """Return the CPU time of the text; raises ValueError if it exceeds the limit twice or the tokenizer fails."""
    text = adversarial_text(run, end, size)
    for _ in range(2):
        began = time.thread_time()
        [ids] = encode_texts(tokenizer, [text])
        seconds = time.thread_time() - began
        if isinstance(ids, Exception):
            raise ValueError(f"fails on {size} characters of {run!r}: {first_line(ids)}") from ids
        if seconds <= limit_s:
            return seconds
    raise ValueError(f"takes {seconds:.2g} s for {size} characters of {run!r}: a pattern backtracks on such texts")


def _fragments(pattern: str) -> Iterator[str]:
    """The literal parts of a pattern, and all of them but the last together."""
    literals = re.findall(r"[^\\\[\](){}?*+|.^$]+", pattern)[:16]
    yield from literals
    if len(literals) > 2:
        yield "".join(literals[:-1])
