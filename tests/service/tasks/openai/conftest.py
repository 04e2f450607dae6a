"""The tiny chat model, and calls of OpenAI's routes without HTTP."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.openai.chat import ChatRequest, read_chat
from service.tasks.openai.completions import CompletionRequest, read_completion
from service.tasks.openai.fields import engine_seed, parse_fields
from tests.service.chat_bundle import NAME, write_chat_bundle
from tests.service.poisoned import read_model

CallRoute = Callable[..., Any]


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return read_model(write_chat_bundle(tmp_path_factory.mktemp("chat")))


@pytest.fixture
def call(chat_model: Model, runner: Runner) -> CallRoute:
    """Function `call(**fields)` that answers a completion, or a chat if there are messages: whole, or its chunks."""

    async def answer(body: dict[str, Any]) -> Any:
        request, read = (ChatRequest, read_chat) if "messages" in body else (CompletionRequest, read_completion)
        fields: Any = parse_fields(request, body)  # type: ignore[type-var]
        context = runner.new_context()
        parsed = await read(chat_model, runner, fields, engine_seed(fields), context)  # type: ignore[operator]
        if fields.stream:
            return [chunk async for chunk in parsed.chunks(runner, context)]
        return await parsed.answer(runner, context)

    return lambda **body: asyncio.run(answer({"model": NAME, "temperature": 0, "seed": 1, **body}))


@pytest.fixture
def refusal(call: CallRoute) -> Callable[..., tuple[str, str]]:
    """Function `refusal(**fields)` that returns pointer and detail of the first fault."""

    def refusal(**body: Any) -> tuple[str, str]:
        with pytest.raises(EkibenError) as caught:
            call(**body)
        return caught.value.faults[0].pointer, caught.value.faults[0].detail

    return refusal
