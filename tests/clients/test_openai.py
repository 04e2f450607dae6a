"""OpenAI's own client, unmodified, and plain curl against the production host."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.e2e.serving import ServerProcess
from tests.service.chat_bundle import CYCLE, END_ID, NAME
from tests.service.event_streams import read_events
from tests.service.hosts import GRANIAN, counted, running_server, wait_until

USER = {"role": "user", "content": "b"}
# Enough texts and tokens that they take longer than a client waits.
LONG = {"model": "tiny-letters", "prompt": ["the "] * 8, "max_tokens": 150, "seed": 1}


@pytest.fixture(scope="module")
def server(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(GRANIAN, served_bundles, tmp_path_factory.mktemp("granian")) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_completions_are_whole_or_streamed(client: openai.OpenAI) -> None:
    whole = client.completions.create(model=NAME, prompt="a", max_tokens=13, temperature=0)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (CYCLE[1:] + "a", "length")
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (1, 13)
    stream = client.completions.create(
        model=NAME, prompt="a", max_tokens=13, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    *chunks, end = stream
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert (end.choices, end.usage) == ([], whole.usage)
    assert chunks[0].system_fingerprint == whole.system_fingerprint


def test_the_seed_decides_the_choices(client: openai.OpenAI) -> None:
    def texts(seed: int) -> list[str]:
        answer = client.completions.create(model=NAME, prompt="a", n=3, seed=seed, temperature=2, max_tokens=12)
        return [choice.text for choice in answer.choices]

    assert texts(2**63 - 1) == texts(2**63 - 1) != texts(0)
    assert len(set(texts(-(2**63)))) == 3


def test_log_probabilities_of_prompt_and_completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=NAME, prompt="ab", max_tokens=1, temperature=0, echo=True, logprobs=2, stop=["x"]
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["a", "b", " "]
    assert logprobs.text_offset == [0, 1, 2]
    assert logprobs.token_logprobs is not None
    assert logprobs.token_logprobs[0] is None
    assert max(logprobs.token_logprobs[1:]) < 0


def test_a_stop_and_a_bias_end_a_text(client: openai.OpenAI) -> None:
    stopped = client.completions.create(model=NAME, prompt="a", temperature=0, stop=["€"])
    assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == ("b é", "stop")
    ended = client.completions.create(model=NAME, prompt="a", logit_bias={str(END_ID): 100})
    assert (ended.choices[0].text, ended.choices[0].finish_reason) == ("", "stop")


def test_chats_are_whole_or_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model=NAME, messages=[USER], max_completion_tokens=5, temperature=0, logprobs=True, top_logprobs=2
    )
    assert whole.choices[0].message.content == "b é"
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.content is not None
    assert [entry.token for entry in whole.choices[0].logprobs.content][:2] == ["b", " "]
    chunks = list(client.chat.completions.create(model=NAME, messages=[USER], max_tokens=5, temperature=0, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "b é"
    with client.chat.completions.stream(model=NAME, messages=[USER], stop="€", temperature=0) as stream:
        assert stream.get_final_completion().choices[0].message.content == "b é"


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME, "tiny-letters"]
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")


def test_errors_are_those_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=NAME, prompt="a", suffix="b")
    assert (refused.value.param, refused.value.code) == ("suffix", "invalid-request")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="none", prompt="a", stream=True)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="has no chat template"):
        client.chat.completions.create(model="tiny-letters", messages=[USER])


def test_a_deadline_is_an_error_that_keeps_the_text(client: openai.OpenAI) -> None:
    """A request of one millisecond fails at its start, one of longer within its stream."""
    with pytest.raises(openai.InternalServerError):
        client.completions.create(**LONG, extra_headers={"x-request-timeout-ms": "1"})
    timeout_ms, text, error = 20, "", None
    while not text or error is None:
        text, error = "", None
        try:
            for chunk in client.completions.create(
                **LONG, stream=True, extra_headers={"x-request-timeout-ms": str(timeout_ms)}
            ):
                text += chunk.choices[0].text
        except openai.APIError as raised:
            error = raised
        timeout_ms += 2 if error else -1
    assert error.code == "timeout"


def test_clients_may_give_up(server: ServerProcess, client: openai.OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.005).completions.create(**LONG)
    with client.completions.create(**LONG, stream=True) as stream:
        next(iter(stream))

    async def cancel() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key="unused") as other:
            task = asyncio.create_task(other.completions.create(**LONG))
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(cancel())
    wait_until(lambda: counted(server, "ekiben_http_in_flight") == 0)


def test_curl_reads_a_stream(server: ServerProcess) -> None:
    body = f'{{"model": "{NAME}", "prompt": "a", "max_tokens": 13, "temperature": 0}}'
    command = ["curl", "-sSN", f"{server.address}/generate/stream", "-H", "content-type: application/json", "-d", body]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    *events, (name, _) = read_events(done.stdout)
    assert "".join(event["text"] for _, event in events) == CYCLE[1:] + "a"
    assert name == "end"
