"""Sample one token for each row of a batch of logits.

The order of operations is that of the field: repetition, presence and frequency penalties, logit bias, min tokens and
further processors; then temperature, top_k, top_p, min_p. The tokens that are left keep their proportions.

Invariant: the token of a row and its log probabilities depend only on its logits, its sampling parameters, its tokens
so far and the triple (seed, choice, position), bit for bit and whatever the other rows are. Without penalties, a prompt
that already contains the first tokens of an answer is continued with the rest of that answer.

Shapes: B rows, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from service.contract.tensors import FrozenModel
from service.engine.generation import categorical, logits
from service.engine.generation.logits import Logits, LogitsProcessor

MAX_SEED = 2**64 - 1
# Rows are sampled together up to this number of logits: in float64, these fit into the cache of a core.
MAX_BLOCK_LOGITS = 1 << 15
# Draws of some positions are made at once, as a generator takes 10 µs.
DRAWS_AHEAD = 32


class Sampling(FrozenModel):
    """Temperature 0 selects the most probable token; top_k 0, top_p 1 and min_p 0 keep all tokens.

    `min_p` is a share of the highest probability. `Penalties` and `MinTokens` define the rest.
    """

    temperature: float = Field(ge=0)
    top_k: int = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    seed: int = Field(ge=0, le=MAX_SEED)
    min_p: float = Field(default=0, ge=0, le=1)
    repetition_penalty: float = Field(default=1, gt=0)
    presence_penalty: float = Field(default=0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0, ge=-2, le=2)
    logit_bias: Mapping[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=-100, le=100)]] = {}
    min_tokens: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A sampled token and log probabilities of the model, before penalties, bias, temperature and cuts.

    `logprob` is None and `top` is empty unless they were asked for; `top` holds the most probable tokens, best first.
    """

    id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]


class RowSampler:
    """The sampling state of one row; `completion` holds the tokens sampled so far.

    `choice` numbers the completions of one prompt. `num_logprobs` asks for log probabilities, and for those of so many
    most probable tokens. Token ids are below V.
    """

    def __init__(
        self,
        sampling: Sampling,
        *,
        prompt: Sequence[int],
        choice: int = 0,
        stop_ids: frozenset[int] = frozenset(),
        num_logprobs: int | None = None,
        processors: Sequence[LogitsProcessor] = (),
    ) -> None:
        self.sampling = sampling
        self.num_logprobs = num_logprobs
        self.completion: list[int] = []
        self.is_greedy = sampling.temperature == 0 or sampling.top_k == 1
        self.is_truncated = sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0
        self.processors: list[LogitsProcessor] = []
        penalties = sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty
        if penalties != (1, 0, 0):
            self.processors.append(logits.Penalties(prompt, *penalties))
        if sampling.logit_bias:
            self.processors.append(logits.LogitBias(sampling.logit_bias))
        if sampling.min_tokens and stop_ids:
            self.processors.append(logits.MinTokens(sampling.min_tokens, stop_ids))
        self.processors.extend(processors)
        self._choice = choice
        self._first, self._uniforms = 0, list[float]()

    def draw(self, position: int) -> categorical.Draw:
        """Return how the token at the position is drawn."""
        if not self._first <= position < self._first + len(self._uniforms):
            self._uniforms = categorical.uniforms(self.sampling.seed, self._choice, position, DRAWS_AHEAD)
            self._first = position
        uniform, how = self._uniforms[position - self._first], self.sampling
        return categorical.Draw(uniform, how.temperature, how.top_k, how.top_p, how.min_p)

    def append(self, token: int, logits_V: Logits) -> TokenLogprob:
        """Append the token, and return it with the log probabilities that were asked for."""
        self.completion.append(token)
        if self.num_logprobs is None:
            return TokenLogprob(token, None, ())
        return TokenLogprob(token, *logits.log_probabilities(logits_V, token, self.num_logprobs))


def sample_rows(logits_BV: Logits, rows: Sequence[RowSampler], positions: Sequence[int]) -> list[TokenLogprob]:
    """Sample a token for each row and append it to the row; positions count from the first token of the prompt.

    Logits of -inf exclude tokens. Raises NotFiniteLogitsError for the first row whose logits are not finite before or
    after its processors; no row has a new token then.
    """
    maxima_B = logits.finite_maxima(logits_BV, positions)
    changed_BV = logits_BV
    if changed := [i for i, row in enumerate(rows) if row.processors]:
        changed_BV = logits_BV.copy()
        for i in changed:
            for processor in rows[i].processors:
                processor(rows[i].completion, changed_BV[i])
        maxima_B = logits.finite_maxima(changed_BV, positions)
    tokens = [0] * len(rows)
    for block in _blocks(rows, logits_BV.shape[1]):
        index = slice(block[0], block[-1] + 1) if block[-1] - block[0] < len(block) else block
        sampled = _sample_block(changed_BV[index], maxima_B[index], [(rows[i], positions[i]) for i in block])
        for i, token in zip(block, sampled, strict=True):
            tokens[i] = token
    return [row.append(token, logits_V) for row, token, logits_V in zip(rows, tokens, logits_BV, strict=True)]


def _blocks(rows: Sequence[RowSampler], vocabulary: int) -> Iterator[list[int]]:
    """Yield the indices of rows of one kind, in blocks of about MAX_BLOCK_LOGITS."""
    kinds: dict[tuple[bool, bool, bool], list[int]] = {}
    for i, row in enumerate(rows):
        kinds.setdefault((row.is_greedy, row.is_truncated, row.sampling.top_k > 0), []).append(i)
    size = max(1, MAX_BLOCK_LOGITS // vocabulary)
    for indices in kinds.values():
        for first in range(0, len(indices), size):
            yield indices[first : first + size]


def _sample_block(logits_BV: Logits, maxima_B: Logits, members: list[tuple[RowSampler, int]]) -> list[int]:
    """Return a token for each row, which is given with its position; all rows are of the kind of the first."""
    kind = members[0][0]
    if kind.is_greedy:
        return logits_BV.argmax(axis=1).tolist()
    draws = [row.draw(position) for row, position in members]
    return (categorical.sample_truncated if kind.is_truncated else categorical.sample)(logits_BV, maxima_B, draws)
