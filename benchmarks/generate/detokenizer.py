"""Measure the CPU time of turning one more token into text, by the number of tokens before it.

    python -m benchmarks.generate.detokenizer [--rounds 5]

The baseline decodes all tokens each time. The tokens are those of a byte-level BPE, of texts with characters of one to
four bytes. Each figure is the least of the rounds, for the last 100 tokens of that number.
"""

import argparse
import time
from collections.abc import Callable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from service.engine.generation.detokenizer import INCOMPLETE, IncrementalDetokenizer, TokenDecoder

TEXT = "Das Öl, 駅 und 😀: naïve Zeichen — и другие буквы, ありがとう, 🏳️‍🌈 and words. "
STOPS = ("###", "\n\n", "User:", "</answer>")
NUM_TOKENS = (100, 500, 1000, 2000, 4000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    tokenizer = train_tokenizer()
    ids = tokenizer.encode(TEXT * 200).ids[: NUM_TOKENS[-1]]
    print("| tokens | decode all, µs | window, µs | window with 4 stops, µs |")
    print("| --- | --- | --- | --- |")
    for num_tokens in NUM_TOKENS:
        figures: list[list[float]] = [[], [], []]
        for _ in range(rounds):
            detokenizers = [
                DecodeAll(tokenizer).append,
                IncrementalDetokenizer(TokenDecoder(tokenizer)).append,
                IncrementalDetokenizer(TokenDecoder(tokenizer), STOPS).append,
            ]
            for figure, append in zip(figures, detokenizers, strict=True):
                figure.append(measure_us(append, ids[:num_tokens]))
        print(f"| {num_tokens:,} | " + " | ".join(f"{min(figure):.1f}" for figure in figures) + " |")


class DecodeAll:
    """The definition: the new text is that of all tokens after what was released."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._num_released = 0

    def append(self, token: int) -> str:
        self._ids.append(token)
        delta = self._tokenizer.decode(self._ids).rstrip(INCOMPLETE)[self._num_released :]
        self._num_released += len(delta)
        return delta


def train_tokenizer() -> Tokenizer:
    """Return a byte-level BPE that keeps rare characters as several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def measure_us(append: Callable[[int], str], ids: list[int]) -> float:
    """Return µs of CPU time a token, for the last 100."""
    for token in ids[:-100]:
        append(token)
    begin = time.process_time()
    for token in ids[-100:]:
        append(token)
    return (time.process_time() - begin) / 100 * 1e6


if __name__ == "__main__":
    main()
