"""Rows of a request are its prompts times its choices; an error names the prompt; leaving the block ends the rows."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.engine.generation.events import GenerationParams
from service.engine.generation.sampler import Sampling
from service.engine.generation.stream import Completion
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.generation.text import TextRequest, stop_ids, tokenize_prompts
from tests.service.chat_bundle import CYCLE, END, END_ID, write_chat_bundle
from tests.service.poisoned import read_model, write_poisoned_bundle


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return read_model(write_chat_bundle(tmp_path_factory.mktemp("chat")))


def request(model: Model, prompts: list[list[int]], *, temperature: float = 0, **params: Any) -> TextRequest:
    sampling = Sampling(temperature=temperature, top_k=0, top_p=1, seed=3)
    return TextRequest(
        model=model,
        prompts=prompts,
        pointers=[f"/prompt/{i}" for i in range(len(prompts))],
        params=GenerationParams(max_tokens=params.pop("max_tokens", 4), sampling=sampling, stop_ids=stop_ids(model)),
        **params,
    )


def complete(text: TextRequest, runner: Runner) -> list[Completion]:
    async def main() -> list[Completion]:
        return await text.complete(text.start(runner, runner.new_context(), is_streamed=False))

    return asyncio.run(main())


def texts(text: TextRequest, runner: Runner) -> list[str]:
    return [row.text for row in complete(text, runner)]


def test_rows_are_choices_prompt_by_prompt(model: Model, runner: Runner) -> None:
    both = texts(request(model, [[0], [4]], temperature=1.5, num_choices=3, max_tokens=9), runner)
    assert both[:3] == texts(request(model, [[0]], temperature=1.5, num_choices=3, max_tokens=9), runner)
    assert both[3:4] == texts(request(model, [[4]], temperature=1.5, max_tokens=9), runner)
    assert len(set(both)) > 3


def test_tokens_of_a_completion_are_all_that_were_sampled(model: Model, runner: Runner) -> None:
    [row] = complete(request(model, [[0]], max_tokens=8), runner)
    assert (row.text, row.finish_reason) == (CYCLE[1:5], "length")
    assert [token.id for token in row.tokens] == list(range(1, 9))


def test_stop_ids_are_those_of_the_model(model: Model) -> None:
    assert stop_ids(model) == {END_ID}


def test_special_tokens_of_a_text_are_read_as_such(model: Model, runner: Runner) -> None:
    context = runner.new_context()
    prompts = {"/prompt/0": f"a{END}", "/prompt/1": [3]}
    assert asyncio.run(tokenize_prompts(prompts, model, runner, context)) == [[0, END_ID], [3]]


def test_logits_that_are_not_finite_name_their_prompt(tmp_path: Path, runner: Runner) -> None:
    poisoned = read_model(write_poisoned_bundle(tmp_path, "language-model"))
    with pytest.raises(EkibenError) as caught:
        complete(request(poisoned, [[0], [25]], num_choices=2), runner)  # 25: z
    assert (caught.value.slug, caught.value.faults[0].pointer) == ("not-finite", "/prompt/1")


def test_leaving_the_block_ends_the_rows(model: Model) -> None:
    async def main() -> None:
        runner = Runner(limits=Limits(max_generations=2))
        try:
            text = request(model, [[0]] * 2, max_tokens=100)
            with text.start(runner, runner.new_context(), is_streamed=True) as generation:
                await anext(generation)
            assert all(row.is_cancelled for row in generation.rows)
            # As many rows as there are slots start at once.
            await text.complete(text.start(runner, runner.new_context(), is_streamed=False))
        finally:
            runner.close()

    asyncio.run(main())


def test_a_deadline_ends_a_stream_with_an_error(model: Model) -> None:
    async def main() -> None:
        runner = Runner()
        text = request(model, [[0]], max_tokens=100)
        try:
            with text.start(runner, runner.new_context(timeout_s=1e-4), is_streamed=True) as generation:
                *_, last = [event async for event in generation]
            with pytest.raises(EkibenError) as caught:
                text.check(last)
            assert caught.value.slug == "timeout"
        finally:
            runner.close()

    asyncio.run(main())
