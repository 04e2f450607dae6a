"""Generation against a full forward pass in float64 numpy without cache, batch or slots."""

import asyncio
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle import Tensors
from service.contract.heads import LanguageModelHead
from service.engine.generation import kv_cache, loop
from service.engine.generation.detokenizer import INCOMPLETE
from service.engine.generation.events import GenerationEvent, GenerationParams
from service.engine.generation.kv_cache import PREFILL_CHUNK, cache_capacity
from service.engine.generation.sampler import RowSampler, Sampling, sample_rows
from service.engine.generation.scheduler import MAX_STEP_TOKENS
from service.engine.generation.stream import Completion, RowFailedError, complete
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.engine.sessions.key_values import DeviceKeyValues
from service.engine.sessions.session import Session
from service.errors import EkibenError
from tests.service.bundles import CONTEXT, HEAD_SIZE, LAYERS, LETTERS, NUM_HEADS, weights
from tests.service.engine.gpu.host_memory import HostMemory

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


def reference(prompt: Sequence[int], params: GenerationParams, ids: Sequence[int]) -> tuple[list[int], list[float]]:
    """Return the token that is sampled after the prompt and each beginning of `ids`, and its log probability."""
    logits_TV = full_logits([*prompt, *ids[:-1]])[len(prompt) - 1 :]
    tokens, logprobs = [], []
    for position, logits_V in enumerate(logits_TV, len(prompt)):
        row = RowSampler(params.sampling, prompt=prompt)
        token = sample_rows(logits_V.astype(np.float32)[None], [row], [position])[0].id
        tokens.append(token)
        peak = logits_V.max()
        logprobs.append(float(logits_V[token] - peak - np.log(np.exp(logits_V - peak).sum())))
    return tokens, logprobs


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
    fields = {"num_logprobs": 0, **fields}
    return GenerationParams(max_tokens=max_tokens, sampling=sampling, **fields)  # type: ignore[arg-type]


async def generate_all(
    session: Any, runner: Runner, prompts: Sequence[Sequence[int]], params: GenerationParams
) -> list[Completion]:
    return await complete(runner.generate(session, spell, prompts, params))


def generate(
    session: Any, runner: Runner, prompts: Sequence[Sequence[int]], params: GenerationParams
) -> list[Completion]:
    return asyncio.run(generate_all(session, runner, prompts, params))


def ids_of(completion: Completion) -> list[int]:
    return [token.id for token in completion.tokens]


def logprobs_of(completion: Completion) -> list[float]:
    return [token.logprob for token in completion.tokens if token.logprob is not None]


@pytest.mark.parametrize("temperature", [0.0, 0.8, 2.0])
@pytest.mark.parametrize("max_tokens", [1, 20, 1000])
def test_tokens_equal_the_full_forward_pass(
    session: Session, runner: Runner, temperature: float, max_tokens: int
) -> None:
    how = params(max_tokens=max_tokens, temperature=temperature)
    for prompt, completion in zip(PROMPTS, generate(session, runner, PROMPTS, how), strict=True):
        ids, logprobs = reference(prompt, how, ids_of(completion))
        assert ids_of(completion) == ids
        np.testing.assert_allclose(logprobs_of(completion), logprobs, atol=1e-4)
        assert completion.text == spell(ids)
        assert completion.finish_reason == "length"
        assert len(ids) == min(max_tokens, CONTEXT - len(prompt))


def test_caches_on_a_device_change_no_bit(session: Session, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    how = params(max_tokens=120)
    expected = generate(session, runner, PROMPTS, how)
    created = list[DeviceKeyValues]()

    def create(head: LanguageModelHead, _device: str) -> DeviceKeyValues:
        created.append(DeviceKeyValues(head, HostMemory()))
        return created[-1]

    monkeypatch.setattr(kv_cache, "create_key_values", create)
    other = Runner()
    try:
        actual = generate(session, other, PROMPTS, how)
    finally:
        other.close()
    assert len(created) > len(PROMPTS)
    assert [one.tokens for one in actual] == [one.tokens for one in expected]


@pytest.mark.parametrize("operation", ["resize", "copy_row", "extend"])
@pytest.mark.parametrize("number", [1, 3, 5, 7, 12])
def test_a_refused_allocation_is_overloaded_and_changes_no_other_row(
    session: Session, runner: Runner, monkeypatch: pytest.MonkeyPatch, operation: str, number: int
) -> None:
    how = params(max_tokens=70)
    expected = generate(session, runner, PROMPTS, how)
    calls = list[None]()

    class Refused(DeviceKeyValues):
        """Four calls in a row are refused memory."""

    def perform(values: DeviceKeyValues, *args: Any) -> Any:
        calls.append(None)
        if number <= len(calls) < number + 4:
            raise RuntimeError("CUDA failure 2: out of memory")
        return getattr(DeviceKeyValues, operation)(values, *args)

    setattr(Refused, operation, perform)
    monkeypatch.setattr(kv_cache, "create_key_values", lambda head, _device: Refused(head, HostMemory()))
    other = Runner()

    async def scenario() -> dict[int, GenerationEvent]:
        with other.generate(session, spell, PROMPTS, how, is_streamed=False) as generation:
            return {event.index: event async for event in generation}

    events = asyncio.run(scenario())
    assert len(calls) >= number
    assert sorted(events) == list(range(len(PROMPTS)))
    for index, event in events.items():
        if event.error is None:
            assert event.tokens == expected[index].tokens
        else:
            assert event.error.slug == "overloaded"
            assert event.tokens == expected[index].tokens[: len(event.tokens)]
    (counters,) = other.counters()
    assert (counters.generation.running, counters.generation.kv_cache_bytes) == (0, 0)
    calls += [None] * (number + 4)
    again = generate(session, other, PROMPTS, how)  # the loop and its thread go on
    other.close()
    assert [one.tokens for one in again] == [one.tokens for one in expected]


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
    (rest,) = generate(session, runner, [PROMPTS[1] + ids_of(whole)[:8]], params(max_tokens=12))
    assert ids_of(rest) == ids_of(whole)[8:]


def test_a_stop_string_ends_only_its_row(session: Session, runner: Runner) -> None:
    free = generate(session, runner, PROMPTS, params())
    stop = free[1].text[4:6]
    stopped = generate(session, runner, PROMPTS, params(stops=(stop,)))
    for before, after in zip(free, stopped, strict=True):
        at = before.text.find(stop)
        assert after.text == (before.text if at < 0 else before.text[:at])
        assert after.finish_reason == ("length" if at < 0 else "stop")
        size = len(before.tokens) if at < 0 else at + len(stop)
        assert after.tokens == before.tokens[:size]
    assert stopped[1].finish_reason == "stop"


def test_a_stop_string_in_the_last_characters_is_found(session: Session, runner: Runner) -> None:
    """Text that is released when the tokens end, here an incomplete character, ends before a stop string too."""

    def decode(ids: Sequence[int]) -> str:
        return "a" + INCOMPLETE * len(ids)

    for prompts, num_tokens in ((PROMPTS, 3), (PROMPTS[:1], 1)):
        how = params(max_tokens=num_tokens, stops=(INCOMPLETE,))

        async def scenario() -> list[Completion]:
            return await complete(runner.generate(session, decode, prompts, how))  # noqa: B023 - run at once

        completions = asyncio.run(scenario())
        assert {(one.text, one.finish_reason) for one in completions} == {("a", "stop")}


def test_a_stop_id_is_not_part_of_the_completion(session: Session, runner: Runner) -> None:
    (free,) = generate(session, runner, [PROMPTS[0]], params())
    for token in set(ids_of(free)):
        (stopped,) = generate(session, runner, [PROMPTS[0]], params(stop_ids=frozenset({token})))
        size = ids_of(free).index(token)
        assert (stopped.tokens, stopped.text, stopped.finish_reason) == (free.tokens[:size], free.text[:size], "stop")


def test_a_full_context_ends_a_completion(session: Session, runner: Runner) -> None:
    prompt = [1] * (CONTEXT - 1)
    (completion,) = generate(session, runner, [prompt], params(max_tokens=50))
    assert (len(completion.tokens), completion.finish_reason) == (1, "length")


@pytest.mark.parametrize("size", [0, CONTEXT, CONTEXT + 1])
def test_a_prompt_without_room_in_the_context_is_refused(session: Session, runner: Runner, size: int) -> None:
    with pytest.raises(ValueError, match=f"the prompt has {size} tokens, expected 1 to {CONTEXT - 1}"):
        generate(session, runner, [[1], [2] * size], params())


def test_max_tokens_0_reads_the_prompt_only(session: Session, runner: Runner) -> None:
    prompts = [[1], [2] * CONTEXT]
    how = params(max_tokens=0, prompt_logprobs=True)
    generation_rows = []

    async def scenario() -> list[Completion]:
        generation = runner.generate(session, spell, prompts, how)
        generation_rows.extend(generation.rows)
        return await complete(generation)

    for completion in asyncio.run(scenario()):
        assert (completion.text, completion.tokens, completion.finish_reason) == ("", (), "length")
    assert [len(row.prompt_logprobs) for row in generation_rows] == [0, CONTEXT - 1]
    with pytest.raises(ValueError, match="max_tokens is -1"):
        generate(session, runner, [[1]], params(max_tokens=-1))


@pytest.mark.parametrize("prompt", [PROMPTS[4], [1, 2], list(range(20)) * 8])
def test_log_probabilities_of_the_prompt(session: Session, runner: Runner, prompt: list[int]) -> None:
    async def scenario() -> list[tuple[int, float | None]]:
        generation = runner.generate(session, spell, [prompt], params(max_tokens=0, prompt_logprobs=True))
        await complete(generation)
        return [(token.id, token.logprob) for token in generation.rows[0].prompt_logprobs]

    logits = full_logits(prompt)[:-1]
    peaks = logits.max(axis=1)
    expected = logits[np.arange(len(logits)), prompt[1:]] - peaks - np.log(np.exp(logits - peaks[:, None]).sum(axis=1))
    ids, logprobs = zip(*asyncio.run(scenario()), strict=True)
    assert list(ids) == prompt[1:]
    np.testing.assert_allclose(logprobs, expected, atol=1e-4)


def test_no_prompts_give_no_completions(session: Session, runner: Runner) -> None:
    assert generate(session, runner, [], params()) == []


@pytest.mark.parametrize(("tokens", "capacity"), [(1, 64), (64, 64), (65, 128), (129, 160), (160, 160)])
def test_cache_capacities_double(tokens: int, capacity: int) -> None:
    assert cache_capacity(tokens, 160) == capacity


class CountingSession:
    """A session that counts its steps and can replace one of the logits."""

    def __init__(self, session: Session, logit: float | None = None) -> None:
        self.manifest, self.device = session.manifest, session.device
        self.steps = 0
        self.widths: list[tuple[int, int, int]] = []  # rows, capacity, steps
        self._session = session
        self._logit = logit

    def run(self, inputs: Tensors) -> dict[str, npt.NDArray[np.float32]]:
        self.steps += 1
        self.widths.append((len(inputs["ids"]), inputs["past_key_0"].shape[2], inputs["ids"].shape[1]))
        assert all(value.flags.c_contiguous for value in inputs.values())
        answer = self._session.run(inputs)
        if self._logit is not None:
            answer["logits"][..., 0] = self._logit
        return answer


def test_tokens_are_counted(session: Session) -> None:
    runner = Runner()
    completions = generate(session, runner, PROMPTS, params(max_tokens=20))
    (counters,) = runner.counters()
    assert (counters.model, counters.version) == (session.manifest.name, session.manifest.version)
    generation, num_tokens = counters.generation, sum(len(completion.tokens) for completion in completions)
    assert generation.generated_tokens == num_tokens
    assert generation.prompt_tokens == sum(map(len, PROMPTS))
    assert generation.finished == {"length": len(PROMPTS)}
    # The first token of a row is sampled after its prompt.
    assert generation.decode_rows == num_tokens - len(PROMPTS)
    assert generation.decode_runs < generation.decode_rows
    assert generation.first_token_s.count == len(PROMPTS)
    assert generation.inter_token_s.count == num_tokens - len(PROMPTS)
    assert (generation.running, generation.waiting, generation.kv_cache_bytes) == (0, 0, 0)
    runner.close()


def test_rows_of_one_capacity_share_steps_and_finished_rows_leave(session: Session, runner: Runner) -> None:
    counting = CountingSession(session)
    generate(counting, runner, [[1], [2] * 63, [3] * 150, [4]], params(max_tokens=40))
    decoding = [(rows, capacity) for rows, capacity, steps in counting.widths if steps == 1]
    assert sum(rows for rows, _ in decoding) == 39 + 39 + 9 + 39
    # The row with 63 tokens moves to the next capacity after one step.
    assert (2, 64) in decoding
    assert sum(rows for rows, capacity in decoding if capacity == 128) == 38
    assert sum(rows for rows, capacity in decoding if capacity == 160) == 9


def test_prompts_are_read_in_chunks_whose_shape_follows_from_their_position(session: Session, runner: Runner) -> None:
    counting = CountingSession(session)
    generate(counting, runner, [[3] * 150], params(max_tokens=1))
    assert counting.widths == [(1, 64, 32), (1, 64, 32), (1, 128, 32), (1, 128, 32), (1, 160, 32)]


def test_a_long_prompt_delays_no_running_row_by_more_than_a_step(session: Session) -> None:
    """Between two runs that decode, at most the chunks of one step are read."""
    counting, runner = CountingSession(session), Runner(threads=1)

    async def scenario() -> None:
        running = asyncio.create_task(generate_all(counting, runner, [[1], [2]], params(max_tokens=150)))
        while counting.steps < 4:
            await asyncio.sleep(0)
        await generate_all(counting, runner, [[3] * 155, [4] * 155], params(max_tokens=1))
        await running

    asyncio.run(scenario())
    decoding = "".join("." if steps == 1 else "c" for _, _, steps in counting.widths)
    assert decoding.count("c") == 1 + 1 + 5 + 5
    assert decoding.endswith("."), "the running rows ended after the prompts were read"
    chunks_a_step = max(map(len, decoding[2:].split(".")))
    assert 1 < chunks_a_step <= MAX_STEP_TOKENS // PREFILL_CHUNK
    runner.close()


def test_a_cached_beginning_is_not_read_again_and_changes_no_bit(session: Session) -> None:
    prompts = [[3, 4] * 40, [3, 4] * 48 + [5], [3, 4] * 47 + [5, 5, 5], [3, 4] * 16 + [9] * 40]
    cached, uncached = Runner(), Runner(limits=Limits(prefix_cache_bytes=0))
    expected = [generate(session, uncached, [prompt], params(max_tokens=30)) for prompt in prompts]
    assert [generate(session, cached, [prompt], params(max_tokens=30)) for prompt in prompts] == expected
    assert [generate(session, cached, [prompt], params(max_tokens=30)) for prompt in reversed(prompts)] == expected[
        ::-1
    ]
    (counters,) = cached.counters()
    first, again = 0 + 64 + 64 + 32, 64 + 96 + 96 + 64
    assert counters.generation.prefix_hit_tokens == first + again
    assert uncached.counters()[0].generation.prefix_hit_tokens == 0
    cached.close()
    uncached.close()


def test_requests_join_and_leave_between_steps(session: Session) -> None:
    """Requests of several event loops share steps, and none changes another."""
    counting, runner = CountingSession(session), Runner(threads=2)
    plans = [(PROMPTS[i % 5], params(max_tokens=1 + 7 * i % 40, seed=i, temperature=2.0)) for i in range(48)]
    expected = [generate(session, runner, [prompt], how) for prompt, how in plans]
    results: dict[int, list[Completion]] = {}

    async def client(number: int) -> None:
        prompt, how = plans[number]
        await asyncio.sleep(0.001 * (number % 7))
        results[number] = await generate_all(counting, runner, [prompt], how)

    async def clients(part: int) -> None:
        await asyncio.gather(*(client(number) for number in range(part, len(plans), 3)))

    threads = [threading.Thread(target=asyncio.run, args=(clients(part),)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[number] for number in range(len(plans))] == expected
    assert max(rows for rows, _, steps in counting.widths if steps == 1) > 8
    runner.close()


def test_rows_wait_until_places_are_free(session: Session) -> None:
    counting, runner = CountingSession(session), Runner(limits=Limits(max_generations=3))
    completions = generate(counting, runner, [[i] for i in range(10)], params(max_tokens=5))
    assert completions == [generate(session, runner, [[i]], params(max_tokens=5))[0] for i in range(10)]
    assert max(rows for rows, *_ in counting.widths) == 3
    runner.close()


def test_rows_wait_until_memory_is_free(session: Session) -> None:
    # One row of capacity 64 takes 2 x layers x heads x 64 x head size floats.
    row_bytes = 2 * LAYERS * NUM_HEADS * 64 * HEAD_SIZE * 4
    counting, runner = CountingSession(session), Runner(limits=Limits(kv_cache_bytes=2 * row_bytes + 1))
    generate(counting, runner, [*[[i] for i in range(5)], [1] * 150], params(max_tokens=5))
    assert max(rows for rows, *_ in counting.widths) == 2
    assert (1, 160, 1) in counting.widths  # a row larger than the memory runs alone
    runner.close()


def test_a_request_that_would_wait_past_its_deadline_is_refused(session: Session) -> None:
    gated, runner = GatedSession(session), Runner(limits=Limits(max_generations=1))

    async def scenario() -> None:
        await complete(runner.generate(gated, spell, [[1]], params(max_tokens=1)))  # type: ignore[arg-type]
        decode_loop, _ = runner._loops[id(gated)]
        for _ in range(64):
            decode_loop.durations_s.append(20.0)
        first = runner.generate(gated, spell, [[1]], params(max_tokens=20))  # type: ignore[arg-type]
        with pytest.raises(EkibenError, match="the maximum at a time is 1") as caught:
            runner.generate(gated, spell, [[1]], params(), context=runner.new_context(timeout_s=39.0))  # type: ignore[arg-type]
        assert (caught.value.slug, caught.value.retry_after_s) == ("overloaded", 20.0)
        second = runner.generate(gated, spell, [[1]], params(), context=runner.new_context(timeout_s=60.0))  # type: ignore[arg-type]
        gated.resume.set()
        assert len(await complete(first)) == len(await complete(second)) == 1

    asyncio.run(scenario())
    runner.close()


@pytest.mark.parametrize(("interval_s", "num_events"), [(0.0, range(11, 21)), (60.0, range(2, 3))])
def test_events_hold_what_was_added_and_end_once(
    session: Session, runner: Runner, monkeypatch: pytest.MonkeyPatch, interval_s: float, num_events: range
) -> None:
    """The first token is an event at once; then an event holds the tokens of an interval."""
    monkeypatch.setattr(loop, "STREAM_INTERVAL_S", interval_s)
    how = params(max_tokens=20, stops=("jj",))

    async def scenario() -> list[GenerationEvent]:
        with runner.generate(session, spell, PROMPTS, how) as generation:
            return [event async for event in generation]

    events = asyncio.run(scenario())
    for index, completion in enumerate(generate(session, runner, PROMPTS, how)):
        row = [event for event in events if event.index == index]
        assert [event.is_last for event in row] == [False] * (len(row) - 1) + [True]
        assert "".join(event.text for event in row) == completion.text
        assert tuple(token for event in row for token in event.tokens) == completion.tokens
        assert len(row[0].tokens) == 1
        if len(completion.tokens) == 20:
            assert len(row) in num_events


def test_the_deadline_ends_every_row_and_keeps_its_text(session: Session) -> None:
    gated, runner = GatedSession(session), Runner(threads=1)

    async def scenario() -> list[GenerationEvent]:
        context = runner.new_context(timeout_s=0.3)
        with runner.generate(gated, spell, [[1], [2]], params(max_tokens=100), context=context) as generation:  # type: ignore[arg-type]
            return [event async for event in generation]

    events = asyncio.run(scenario())
    gated.resume.set()
    assert "".join(event.text for event in events)
    assert [event.index for event in events if event.is_last] == [0, 1]
    assert [event.error.slug for event in events if event.error] == ["timeout", "timeout"]
    runner.close()


def test_a_closed_runner_ends_generations(session: Session) -> None:
    gated, runner = GatedSession(session), Runner(threads=1)

    async def scenario() -> None:
        generation = runner.generate(gated, spell, [[1], [2]], params(max_tokens=100))  # type: ignore[arg-type]
        while not gated.blocked.is_set():
            await asyncio.sleep(0.001)
        closing = asyncio.create_task(asyncio.to_thread(runner.close))
        await asyncio.sleep(0.05)
        gated.resume.set()
        with pytest.raises(RowFailedError, match="shutting down"):
            await complete(generation)
        await closing
        with pytest.raises(EkibenError, match="shutting down"):
            runner.generate(gated, spell, [[1]], params())  # type: ignore[arg-type]

    asyncio.run(scenario())


@pytest.mark.parametrize("logit", [math.nan, math.inf])
def test_logits_that_are_not_finite_end_their_row(session: Session, runner: Runner, logit: float) -> None:
    with pytest.raises(RowFailedError, match=r"row 0: .*'logits' is not finite") as caught:
        generate(CountingSession(session, logit), runner, [[1, 2]], params())
    assert (caught.value.index, caught.value.error.slug) == (0, "not-finite")


class PoisonedSession(CountingSession):
    """Token 7 makes the graph fail, or its row have NaN as logits, keys and values."""

    def __init__(self, session: Session, *, fails: bool) -> None:
        super().__init__(session)
        self._fails = fails

    def run(self, inputs: Tensors) -> dict[str, npt.NDArray[np.float32]]:
        poisoned = (inputs["ids"] == 7).any(axis=1)
        if self._fails and poisoned.any():
            raise RuntimeError("the graph failed")
        answer = super().run(inputs)
        for value in answer.values():
            value[poisoned] = np.nan
        return answer


@pytest.mark.parametrize(("fails", "slug"), [(True, "internal"), (False, "not-finite")])
def test_a_row_that_fails_ends_alone(session: Session, runner: Runner, fails: bool, slug: str) -> None:
    how = params(max_tokens=60, temperature=3.0, stop_ids=frozenset())
    prompts = [[i] for i in range(6)] + [[7], [1, 2, 7], [9] * 40]
    expected = [generate(session, runner, [prompt], how)[0] for prompt in prompts]

    async def scenario() -> list[GenerationEvent]:
        poisoned: Any = PoisonedSession(session, fails=fails)
        with runner.generate(poisoned, spell, prompts, how, is_streamed=False) as generation:
            return [event async for event in generation]

    events = {event.index: event for event in asyncio.run(scenario())}
    assert len(events) == len(prompts)
    for index, (prompt, completion) in enumerate(zip(prompts, expected, strict=True)):
        ids = [*prompt, *ids_of(completion)[:-1]]
        event = events[index]
        if 7 in ids:
            assert event.error is not None
            assert event.error.slug == slug
            assert event.tokens == completion.tokens[: max(0, ids.index(7) + 1 - len(prompt))]
        else:
            assert event.text == completion.text
    assert {event.error is None for event in events.values()} == {True, False}


def test_a_row_whose_sampling_or_text_fails_ends_alone(session: Session, runner: Runner) -> None:
    class Panic(BaseException):
        pass

    def panic(ids: Sequence[int]) -> str:
        raise Panic("in the library")

    bias = Sampling(temperature=1.0, top_k=0, top_p=1.0, seed=5, logit_bias={10_000: 1.0})
    how = params(max_tokens=30)
    expected = generate(session, runner, PROMPTS[:2], how)

    async def scenario() -> list[Any]:
        bad = [
            complete(runner.generate(session, spell, [[1]], GenerationParams(max_tokens=30, sampling=bias))),
            complete(runner.generate(session, panic, [[1]], how)),
        ]
        good = complete(runner.generate(session, spell, PROMPTS[:2], how))
        return await asyncio.gather(good, *bad, return_exceptions=True)

    good, *failures = asyncio.run(scenario())
    assert good == expected
    for failure, reason in zip(failures, ("out of bounds", "Panic: in the library"), strict=True):
        assert isinstance(failure, RowFailedError)
        assert failure.error.slug == "internal"
        assert reason in failure.error.detail


class GatedSession:
    """A session that counts its runs and blocks the third."""

    def __init__(self, session: Session) -> None:
        self.manifest, self.device = session.manifest, session.device
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
        generation = asyncio.create_task(generate_all(gated, runner, [[1, 2]], params(max_tokens=100)))
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
        generation = asyncio.create_task(generate_all(gated, runner, [[1, 2]], params(max_tokens=100)))
        while not gated.blocked.is_set():
            await asyncio.sleep(0.001)
        await runner.call(lambda: None)
        assert not generation.done()
        await generation

    asyncio.run(scenario())
    runner.close()
