"""Sampled tokens against exact probabilities, against the definition by a full sort, and in any company."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks.generate import full_sort
from service.engine.generation.logits import Logits, NotFiniteLogitsError
from service.engine.generation.sampler import MAX_SEED, RowSampler, Sampling, TokenLogprob, sample_rows

CHI_SQUARE_11_AT_1E_6 = 49.8  # 11 degrees of freedom: exceeded once in a million (Abramowitz & Stegun 26.4)
LOGITS = np.array([2.0, 1.0, 0.5, 0.0, 3.0, -1.0, 1.5, 2.5, -0.5, 0.2, 1.1, -2.0], np.float32)
NUM_DRAWS = 6000

logits_of_some_size = hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-50, 50, width=32))
samplings = st.builds(
    Sampling,
    temperature=st.floats(0, 5),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.01, 1) | st.just(1.0),
    seed=st.integers(0, MAX_SEED),
    min_p=st.floats(0, 0.5) | st.just(0.0),
)


def params(**changes: object) -> Sampling:
    return Sampling(**({"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0} | changes))  # type: ignore[arg-type]


def sample(logits: np.ndarray, sampling: Sampling, position: int) -> int:
    [sampled] = sample_rows(logits[None], [RowSampler(sampling, prompt=())], [position])
    return sampled.id


def softmax(logits: Sequence[float], temperature: float = 1.0) -> list[float]:
    weights = [math.exp(float(value) / temperature) for value in logits]
    return [weight / math.fsum(weights) for weight in weights]


def shares_of(tokens: set[int], probabilities: list[float]) -> list[float]:
    """The probabilities of these tokens alone."""
    total = math.fsum(probabilities[token] for token in tokens)
    return [share / total if token in tokens else 0.0 for token, share in enumerate(probabilities)]


def chi_square(tokens: Sequence[int], expected: list[float]) -> float:
    counts = np.bincount(tokens, minlength=LOGITS.size)
    pairs = [(int(count), len(tokens) * share) for count, share in zip(counts, expected, strict=True)]
    assert all(count == 0 for count, mean in pairs if mean == 0)
    return sum((count - mean) ** 2 / mean for count, mean in pairs if mean)


def draw_many(row: RowSampler) -> list[int]:
    """Draw a token for this state of the row at each of many positions."""
    rows = np.tile(LOGITS, (NUM_DRAWS, 1))
    return [sampled.id for sampled in sample_rows(rows, [row] * NUM_DRAWS, range(NUM_DRAWS))]


RANKED = sorted(range(LOGITS.size), key=lambda token: -LOGITS[token])
PROMPT, COMPLETION = [4, 4, 5, 6], [4, 0, 0, 5]
REPEATED = [
    value * (0.5 if value > 0 else 2) if i in {0, 4, 5, 6} else value for i, value in enumerate(LOGITS.tolist())
]
CASES: list[tuple[dict[str, object], list[float]]] = [
    ({"temperature": 0.5}, softmax(LOGITS, 0.5)),
    ({"temperature": 1.7}, softmax(LOGITS, 1.7)),
    ({"top_k": 4}, shares_of(set(RANKED[:4]), softmax(LOGITS))),
    ({"top_p": 0.7}, shares_of(set(RANKED[:3]), softmax(LOGITS))),
    ({"min_p": 0.3}, shares_of({4, 7, 0}, softmax(LOGITS))),
    # 0.83 of the first six, but not of all tokens, are four.
    ({"top_k": 6, "top_p": 0.83, "min_p": 0.01, "temperature": 1.2}, shares_of(set(RANKED[:4]), softmax(LOGITS, 1.2))),
    ({"repetition_penalty": 2.0}, softmax(REPEATED)),
    ({"presence_penalty": 1.5}, softmax([v - 1.5 * (i in {0, 4, 5}) for i, v in enumerate(LOGITS)])),
    ({"frequency_penalty": -0.5}, softmax([v + 0.5 * COMPLETION.count(i) for i, v in enumerate(LOGITS)])),
    ({"logit_bias": {3: 2.5, 4: -100}}, softmax([v + 2.5 * (i == 3) - 100 * (i == 4) for i, v in enumerate(LOGITS)])),
    ({"min_tokens": 5}, shares_of(set(range(12)) - {4, 7}, softmax(LOGITS))),
    ({"min_tokens": 4}, softmax(LOGITS)),
]


@pytest.mark.parametrize(("changes", "expected"), CASES, ids=[" ".join(changes) for changes, _ in CASES])
def test_frequencies_follow_the_exact_probabilities(changes: dict[str, object], expected: list[float]) -> None:
    row = RowSampler(params(seed=7, **changes), prompt=PROMPT, stop_ids=frozenset({4, 7}))
    row.completion += COMPLETION
    tokens = draw_many(row)
    assert chi_square(tokens, expected) < CHI_SQUARE_11_AT_1E_6
    # The statistic tells this distribution from one that is a little flatter.
    flatter = [share**0.7 for share in expected]
    assert chi_square(tokens, [share / math.fsum(flatter) for share in flatter]) > CHI_SQUARE_11_AT_1E_6


@pytest.mark.parametrize("keyed_by", ["seed", "choice"])
def test_frequencies_over_seeds_and_choices_follow_the_softmax(keyed_by: str) -> None:
    rows = [
        RowSampler(params(seed=i), prompt=()) if keyed_by == "seed" else RowSampler(params(), prompt=(), choice=i)
        for i in range(5000)
    ]
    tokens = [sampled.id for sampled in sample_rows(np.tile(LOGITS, (5000, 1)), rows, [3] * 5000)]
    assert chi_square(tokens, softmax(LOGITS)) < CHI_SQUARE_11_AT_1E_6


@given(logits_of_some_size, samplings, st.integers(0, 1000))
def test_tokens_equal_those_of_a_full_sort(logits: np.ndarray, sampling: Sampling, position: int) -> None:
    assert sample(logits, sampling, position) == full_sort.sample(logits, sampling, position)


@pytest.mark.parametrize("cut", [{}, {"top_k": 40}, {"top_p": 0.9}, {"min_p": 0.02}, {"top_k": 300, "top_p": 0.95}])
def test_tokens_of_a_large_vocabulary_equal_those_of_a_full_sort(cut: dict[str, object]) -> None:
    """Logits are rounded, so that many are equal."""
    logits_BV = np.random.default_rng(5).normal(0, 3, (20, 5000)).round(1).astype(np.float32)
    sampling = params(seed=3, temperature=0.9, **cut)
    rows = [RowSampler(sampling, prompt=()) for _ in logits_BV]
    for step in range(10):
        sampled = sample_rows(logits_BV, rows, range(step, step + 20))
        expected = [full_sort.sample(logits_V, sampling, step + i) for i, logits_V in enumerate(logits_BV)]
        assert [token.id for token in sampled] == expected


def forbid_even(completion: Sequence[int], logits_V: Logits, /) -> None:
    logits_V[::2] = -np.inf


def random_row(rng: np.random.Generator, vocabulary: int) -> RowSampler:
    def sometimes(value: object, otherwise: object) -> object:
        return value if rng.random() < 0.5 else otherwise

    sampling = params(
        temperature=sometimes(float(rng.uniform(0.1, 3)), rng.integers(0, 2)),
        top_k=sometimes(int(rng.integers(1, 2 * vocabulary)), 0),
        top_p=sometimes(float(rng.uniform(0.05, 1)), 1),
        min_p=sometimes(float(rng.uniform(0, 0.5)), 0),
        seed=int(rng.integers(0, MAX_SEED, dtype=np.uint64)),
        repetition_penalty=sometimes(float(rng.uniform(0.5, 2)), 1),
        presence_penalty=sometimes(float(rng.uniform(-2, 2)), 0),
        frequency_penalty=sometimes(float(rng.uniform(-2, 2)), 0),
        logit_bias=sometimes({int(rng.integers(vocabulary)): float(rng.uniform(-100, 100))}, {}),
        min_tokens=sometimes(3, 0),
    )
    return RowSampler(
        sampling,
        prompt=rng.integers(0, vocabulary, 5).tolist(),
        choice=int(rng.integers(3)),
        stop_ids=frozenset({0}),
        num_logprobs=[None, 0, 5][rng.integers(3)],  # type: ignore[call-overload]
        processors=[forbid_even] if rng.random() < 0.2 else [],
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2, 9, 100, 3000, 40_000]))
def test_a_row_is_the_same_bits_alone_and_in_any_company(seed: int, vocabulary: int) -> None:
    rng = np.random.default_rng(seed)
    num_rows = int(rng.integers(2, 12)) if vocabulary < 40_000 else 3
    logits_SBV = rng.normal(0, rng.uniform(0.1, 5), (3, num_rows, vocabulary)).astype(np.float32)
    states = [rng.bit_generator.state]
    for _ in range(num_rows):
        random_row(rng, vocabulary)
        states.append(rng.bit_generator.state)

    def row_of(index: int) -> RowSampler:
        rng.bit_generator.state = states[index]
        return random_row(rng, vocabulary)

    positions = rng.integers(0, 1000, num_rows).tolist()
    order = rng.permutation(num_rows).tolist()
    rows = [row_of(i) for i in order]
    batched: list[list[TokenLogprob]] = [
        sample_rows(logits_BV[order], rows, [positions[i] + step for i in order])
        for step, logits_BV in enumerate(logits_SBV)
    ]
    for place, i in enumerate(order):
        single = row_of(i)
        for step, logits_BV in enumerate(logits_SBV):
            [expected] = sample_rows(logits_BV[i : i + 1], [single], [positions[i] + step])
            assert batched[step][place] == expected
        assert rows[place].completion == single.completion


@given(logits_of_some_size, st.integers(0, MAX_SEED))
def test_temperature_0_or_top_k_1_selects_the_most_probable(logits: np.ndarray, seed: int) -> None:
    best = int(np.argmax(logits))
    assert sample(logits, params(temperature=0.0, seed=seed), 5) == best
    assert sample(logits, params(top_k=1, seed=seed), 5) == best
    assert sample(logits, params(top_p=1e-9, seed=seed), 5) == best
    assert logits[sample(logits, params(temperature=1e-300, seed=seed), 5)] == logits[best]
    # Logits closer than float64 tells apart have the same probability.
    assert np.exp(float(logits[sample(logits, params(min_p=1, seed=seed), 5)]) - float(logits[best])) == 1


def test_a_row_collects_its_tokens_and_is_penalised_for_them() -> None:
    """Greedy with a strong frequency penalty: the tokens take turns in the order of their logits."""
    row = RowSampler(params(temperature=0.0, frequency_penalty=2.0), prompt=())
    logits = np.array([[1.5, 3.0, 2.0]], np.float32)
    assert [sample_rows(logits, [row], [position])[0].id for position in range(5)] == [1, 2, 0, 1, 2]
    assert row.completion == [1, 2, 0, 1, 2]
    assert logits.tolist() == [[1.5, 3.0, 2.0]]


def test_a_bias_of_100_selects_or_excludes_a_token() -> None:
    for position in range(200):
        assert sample(LOGITS, params(logit_bias={11: 100}), position) == 11
        assert sample(LOGITS, params(logit_bias={4: -100, 7: -100}), position) not in {4, 7}


def test_log_probabilities_are_those_of_the_model_and_only_on_request() -> None:
    changed = params(temperature=0.3, top_k=2, repetition_penalty=1.5, logit_bias={3: 20})
    for num_logprobs in (None, 0, 2):
        row = RowSampler(changed, prompt=[1], num_logprobs=num_logprobs)
        [sampled] = sample_rows(LOGITS[None], [row], [0])
        assert sampled.id == 3
        if num_logprobs is None:
            assert (sampled.logprob, sampled.top) == (None, ())
        else:
            assert sampled.logprob == pytest.approx(math.log(softmax(LOGITS)[3]))
            assert sampled.top == tuple((i, pytest.approx(math.log(softmax(LOGITS)[i]))) for i in [4, 7][:num_logprobs])


@pytest.mark.parametrize("bad", [[np.nan, 1], [np.inf, 1], [-np.inf, -np.inf]])
@pytest.mark.parametrize("changes", [{}, {"temperature": 0.0}, {"top_k": 2}, {"presence_penalty": 1.0}])
def test_logits_that_are_not_finite_raise_and_change_no_row(bad: list[float], changes: dict[str, object]) -> None:
    rows = [RowSampler(params(**changes), prompt=()) for _ in range(3)]
    logits = np.array([[1, 2], bad, bad], np.float32)
    with pytest.raises(NotFiniteLogitsError, match="the logits of prompt 1 at position 8 are not finite") as caught:
        sample_rows(logits, rows, [7, 8, 9])
    assert caught.value.row == 1
    assert all(not row.completion for row in rows)


def test_processors_that_leave_no_token_raise() -> None:
    row = RowSampler(params(min_tokens=1), prompt=(), stop_ids=frozenset({1}), processors=[forbid_even])
    with pytest.raises(NotFiniteLogitsError):
        sample_rows(np.zeros((1, 3), np.float32), [row], [0])


def test_processors_run_in_order_after_the_penalties() -> None:
    """2 / 2 + 4 = 5 - 2, whereas the other order gives (2 + 4) / 2."""
    found: list[list[float]] = []

    def record(completion: Sequence[int], logits_V: Logits, /) -> None:
        found.append([*completion, *logits_V.tolist()])

    sampling = params(repetition_penalty=2.0, logit_bias={0: 4}, min_tokens=9)
    row = RowSampler(sampling, prompt=[0], stop_ids=frozenset({2}), processors=[record, forbid_even, record])
    row.completion.append(1)
    sample_rows(np.array([[2, 2, 2]], np.float32), [row], [2])
    assert found == [[1, 5, 1, -np.inf], [1, -np.inf, 1, -np.inf]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -0.1}, r"temperature\n.*input_value=-0\.1,"),
        ({"temperature": math.nan}, r"temperature\n.*input_value=nan,"),
        ({"temperature": math.inf}, r"temperature\n.*input_value=inf,"),
        ({"top_k": -1}, r"top_k\n.*input_value=-1,"),
        ({"top_p": 0.0}, r"top_p\n.*input_value=0\.0,"),
        ({"top_p": 1.01}, r"top_p\n.*input_value=1\.01,"),
        ({"min_p": 1.01}, r"min_p\n.*input_value=1\.01,"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty\n.*input_value=0\.0,"),
        ({"presence_penalty": 2.1}, r"presence_penalty\n.*input_value=2\.1,"),
        ({"frequency_penalty": -2.1}, r"frequency_penalty\n.*input_value=-2\.1,"),
        ({"logit_bias": {1: 100.5}}, r"logit_bias\.1\n.*input_value=100\.5,"),
        ({"logit_bias": {-1: 1}}, r"logit_bias\.-1.*\n.*input_value=-1,"),
        ({"min_tokens": -1}, r"min_tokens\n.*input_value=-1,"),
        ({"seed": -1}, r"seed\n.*input_value=-1,"),
        ({"seed": MAX_SEED + 1}, f"seed\n.*less than or equal to {MAX_SEED} .*input_value={MAX_SEED + 1},"),
    ],
)
def test_parameters_out_of_range_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        params(**change)


def test_every_seed_of_64_bits_is_accepted() -> None:
    assert params(seed=2**64 - 1).seed == 2**64 - 1
