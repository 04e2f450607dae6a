"""Generation against a full forward pass in float64 numpy without cache, batch or slots."""

import asyncio
import math
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle import Tensors
from service.engine.generation.decoder import (
    Completion,
    GenerationParams,
    cache_capacity,
    generate_tokens,
)
from service.engine.generation.detokenizer import INCOMPLETE
from service.engine.generation.logits import NotFiniteLogitsError
from service.engine.generation.sampler import RowSampler, Sampling, sample_rows
from service.engine.runner import Runner
from service.engine.sessions.session import Session
from tests.service.bundles import CONTEXT, HEAD_SIZE, LAYERS, LETTERS, NUM_HEADS, weights

PROMPTS = [[3], [0, 1, 2, 3, 4], [5] * 17, [26, 7, 7], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0] * 7]


def spell(ids: Sequence[int]) -> str:
    return "".join(LETTERS[i] for i in ids)


def full_logits(ids: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return logits [steps, vocabulary] of causal attention over all ids at once."""
    w = {name: value.astype(np.float64) for name, value in weights("language-model").items()}
    x = w["embedding"][list(ids)] + w["positions"][: len(ids)]
    hidden = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
    for layer in range(LAYERS):
        q, k, v = ((x @ w[f"{part}_w_{layer}"]).reshape(-1, NUM_HEADS, HEAD_SIZE) for part in "qkv")
        scores = np.einsum("shd,thd->hst", q, k) + hidden
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        x = x + np.einsum("hst,thd->shd", shares, v).reshape(len(ids), -1)
    return x @ w["head"]


def reference(prompt: Sequence[int], params: GenerationParams) -> tuple[list[int], list[float]]:
    """Return tokens and their log probabilities, each from a forward pass of its own, without stops."""
    ids, logprobs = list(prompt), []
    while len(ids) < min(CONTEXT, len(prompt) + params.max_tokens):
        logits = full_logits(ids)[-1]
        row = RowSampler(params.sampling, prompt=prompt)
        token = sample_rows(logits.astype(np.float32)[None], [row], [len(ids)])[0].id
        ids.append(token)
        logprobs.append(float(logits[token] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()))
    return ids[len(prompt) :], logprobs


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    runner = Runner(threads=2)
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def session(sessions: dict[str, Session]) -> Session:
    return sessions["language-model"]


def params(*, max_tokens: int = 12, temperature: float = 1.0, seed: int = 5, **fields: object) -> GenerationParams:
    sampling = Sampling(temperature=temperature, top_k=0, top_p=1.0, seed=seed)
    return GenerationParams(max_tokens=max_tokens, sampling=sampling, **fields)  # type: ignore[arg-type]


def generate(
    session: Session, runner: Runner, prompts: Sequence[Sequence[int]], params: GenerationParams
) -> list[Completion]:
    return asyncio.run(generate_tokens(session, prompts, params, runner, spell))


@pytest.mark.parametrize("temperature", [0.0, 0.8, 2.0])
@pytest.mark.parametrize("max_tokens", [1, 20, 1000])
def test_tokens_equal_the_full_forward_pass(
    session: Session, runner: Runner, temperature: float, max_tokens: int
) -> None:
    how = params(max_tokens=max_tokens, temperature=temperature)
    for prompt, completion in zip(PROMPTS, generate(session, runner, PROMPTS, how), strict=True):
        ids, logprobs = reference(prompt, how)
        assert list(completion.ids) == ids
        np.testing.assert_allclose(completion.logprobs, logprobs, atol=1e-4)
        assert completion.text == spell(ids)
        assert completion.finish_reason == "length"
        assert len(ids) == min(max_tokens, CONTEXT - len(prompt))


random_params = st.builds(
    lambda stops, **fields: params(stops=tuple(stops), **fields),
    max_tokens=st.integers(1, 40),
    temperature=st.sampled_from([0.0, 1.0, 3.0]),
    seed=st.integers(0, 2**64 - 1),
    stops=st.lists(st.sampled_from(["e", "jj", ".\n", "a "]), max_size=2),
)
prompt_lists = st.lists(st.lists(st.integers(0, len(LETTERS) - 1), min_size=1, max_size=70), min_size=2, max_size=6)


@settings(max_examples=25, deadline=None)
@given(prompts=prompt_lists, how=random_params)
def test_a_completion_does_not_depend_on_other_prompts(
    session: Session, runner: Runner, prompts: list[list[int]], how: GenerationParams
) -> None:
    batched = generate(session, runner, prompts, how)
    single = [generate(session, runner, [prompt], how)[0] for prompt in prompts]
    assert batched == single


def test_equal_prompts_have_equal_completions(session: Session, runner: Runner) -> None:
    one, other = generate(session, runner, [PROMPTS[1]] * 2, params())
    assert one == other
    assert generate(session, runner, [PROMPTS[1]], params(seed=6)) != [one]


def test_a_prompt_with_the_first_tokens_is_continued_with_the_rest(session: Session, runner: Runner) -> None:
    (whole,) = generate(session, runner, [PROMPTS[1]], params(max_tokens=20))
    (rest,) = generate(session, runner, [PROMPTS[1] + list(whole.ids[:8])], params(max_tokens=12))
    assert rest.ids == whole.ids[8:]


def test_a_stop_string_ends_only_its_row(session: Session, runner: Runner) -> None:
    free = generate(session, runner, PROMPTS, params())
    stop = free[1].text[4:6]
    stopped = generate(session, runner, PROMPTS, params(stops=(stop,)))
    for before, after in zip(free, stopped, strict=True):
        at = before.text.find(stop)
        assert after.text == (before.text if at < 0 else before.text[:at])
        assert after.finish_reason == ("length" if at < 0 else "stop")
        size = len(before.ids) if at < 0 else at + len(stop)
        assert after.ids == before.ids[:size]
        assert after.logprobs == before.logprobs[:size]
    assert stopped[1].finish_reason == "stop"


def test_a_stop_string_in_the_last_characters_is_found(session: Session, runner: Runner) -> None:
    """Text that is released when the tokens end, here an incomplete character, ends before a stop string too."""
    how = params(max_tokens=3, stops=(INCOMPLETE,))
    completions = asyncio.run(generate_tokens(session, PROMPTS, how, runner, lambda ids: "a" + INCOMPLETE * len(ids)))
    assert {(one.text, one.finish_reason) for one in completions} == {("a", "stop")}
    how = params(max_tokens=1, stops=(INCOMPLETE,))
    [last] = asyncio.run(generate_tokens(session, PROMPTS[:1], how, runner, lambda ids: "a" + INCOMPLETE))
    assert (last.text, last.finish_reason) == ("a", "stop")


def test_a_stop_id_is_not_part_of_the_completion(session: Session, runner: Runner) -> None:
    (free,) = generate(session, runner, [PROMPTS[0]], params())
    for token in set(free.ids):
        (stopped,) = generate(session, runner, [PROMPTS[0]], params(stop_ids=frozenset({token})))
        size = free.ids.index(token)
        assert (stopped.ids, stopped.text, stopped.finish_reason) == (free.ids[:size], spell(free.ids[:size]), "stop")


def test_a_full_context_ends_a_completion(session: Session, runner: Runner) -> None:
    prompt = [1] * (CONTEXT - 1)
    (completion,) = generate(session, runner, [prompt], params(max_tokens=50))
    assert (len(completion.ids), completion.finish_reason) == (1, "length")


@pytest.mark.parametrize("size", [0, CONTEXT, CONTEXT + 1])
def test_a_prompt_without_room_in_the_context_is_refused(session: Session, runner: Runner, size: int) -> None:
    with pytest.raises(ValueError, match=f"the prompt has {size} tokens, expected 1 to {CONTEXT - 1}"):
        generate(session, runner, [[1], [2] * size], params())


def test_max_tokens_0_is_refused(session: Session, runner: Runner) -> None:
    with pytest.raises(ValueError, match="max_tokens is 0"):
        generate(session, runner, [[1]], params(max_tokens=0))


def test_no_prompts_give_no_completions(session: Session, runner: Runner) -> None:
    assert generate(session, runner, [], params()) == []


@pytest.mark.parametrize(("tokens", "capacity"), [(1, 64), (64, 64), (65, 128), (129, 160), (160, 160)])
def test_cache_capacities_double(tokens: int, capacity: int) -> None:
    assert cache_capacity(tokens, 160) == capacity


class CountingSession:
    """A session that counts its steps and can replace one of the logits."""

    def __init__(self, session: Session, logit: float | None = None) -> None:
        self.manifest = session.manifest
        self.steps = 0
        self.widths: list[tuple[int, int]] = []
        self._session = session
        self._logit = logit

    def run(self, inputs: Tensors) -> dict[str, npt.NDArray[np.float32]]:
        self.steps += 1
        self.widths.append((len(inputs["ids"]), inputs["past_key_0"].shape[2]))
        assert all(value.flags.c_contiguous for value in inputs.values())
        answer = self._session.run(inputs)
        if self._logit is not None:
            answer["logits"][..., 0] = self._logit
        return answer


def test_every_token_is_counted_as_a_step(session: Session) -> None:
    runner = Runner()
    completions = generate(session, runner, PROMPTS, params(max_tokens=20))
    (counters,) = runner.counters()
    assert (counters.model, counters.decoder_steps) == (session.manifest.name, sum(len(c.ids) for c in completions))
    runner.close()


def test_finished_rows_leave_the_batch(session: Session, runner: Runner) -> None:
    counting = CountingSession(session)
    generate(counting, runner, [[1], [2] * 70, [3] * 150, [4]], params(max_tokens=40))  # type: ignore[arg-type]
    prefill_and_steps = [(1, 64), (1, 64), *[(2, 64)] * 39, (1, 128), *[(1, 128)] * 39, (1, 160), *[(1, 160)] * 9]
    assert counting.widths == prefill_and_steps


def test_a_cancelled_generation_stops_within_a_step(session: Session) -> None:
    counting, runner = CountingSession(session), Runner(threads=1)

    async def scenario() -> int:
        how = params(max_tokens=150)
        task = asyncio.create_task(generate_tokens(counting, [[1], [2]], how, runner, spell))  # type: ignore[arg-type]
        while counting.steps < 5:
            await asyncio.sleep(0)
        steps_before = counting.steps
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.call(lambda: None)  # with one thread, no step is running after this call
        return counting.steps - steps_before

    assert asyncio.run(scenario()) <= 1 + 1  # a step may start before the cancellation
    runner.close()


@pytest.mark.parametrize("logit", [math.nan, math.inf])
def test_logits_that_are_not_finite_raise(session: Session, runner: Runner, logit: float) -> None:
    with pytest.raises(NotFiniteLogitsError, match="the logits of prompt 0 at position 2 are not finite") as caught:
        generate(CountingSession(session, logit), runner, [[1, 2]], params())  # type: ignore[arg-type]
    assert caught.value.row == 0


class GatedSession:
    """A session that counts its runs and blocks the third."""

    def __init__(self, session: Session) -> None:
        self.manifest = session.manifest
        self.runs = 0
        self.blocked, self.resume = threading.Event(), threading.Event()
        self._run = session.run

    def run(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        self.runs += 1
        if self.runs == 3:
            self.blocked.set()
            assert self.resume.wait(30)
        return self._run(inputs, outputs)


def test_a_generation_cancelled_during_a_step_starts_no_further_step(session: Session, runner: Runner) -> None:
    gated = GatedSession(session)

    async def scenario() -> None:
        generation = asyncio.create_task(
            generate_tokens(gated, [[1, 2]], params(max_tokens=100), runner, spell)  # type: ignore[arg-type]
        )
        while not gated.blocked.is_set():
            await asyncio.sleep(0.001)
        generation.cancel()
        with pytest.raises(asyncio.CancelledError):
            await generation
        gated.resume.set()
        assert await runner.call(lambda: "the thread is free") == "the thread is free"

    asyncio.run(scenario())
    assert gated.runs == 3
    assert runner._executor.pending == 0


def test_other_calls_run_between_the_steps_of_a_generation(session: Session) -> None:
    runner, gated = Runner(threads=1), GatedSession(session)
    gated.resume.set()

    async def scenario() -> None:
        generation = asyncio.create_task(
            generate_tokens(gated, [[1, 2]], params(max_tokens=100), runner, spell)  # type: ignore[arg-type]
        )
        while not gated.blocked.is_set():
            await asyncio.sleep(0.001)
        await runner.call(lambda: None)
        assert not generation.done()
        await generation

    asyncio.run(scenario())
    runner.close()
