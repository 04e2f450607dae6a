"""The edges of generation are the same at every route, whole and streamed: docs/generation.md lists them."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.service.bundles import CONTEXT
from tests.service.chat_bundle import CYCLE, NAME, TOKENS
from tests.service.event_streams import read_events

ROUTES = ("/generate", "/generate/stream", "/v1/completions", "/v1/completions stream", "/v2", "/v2 stream")
OPENAI = ("/v1/completions", "/v1/completions stream")


def ask(client: TestClient, route: str, prompt: Any, **fields: Any) -> tuple[int, str]:
    """Return the status and the text that continues one prompt."""
    fields = {"max_tokens": 13, "temperature": 0, **fields}
    streams = "stream" in route
    if route.startswith("/v2"):
        path = f"/v2/models/{NAME}/generate{'_stream' if streams else ''}"
        body: dict[str, Any] = {"text_input": prompt, "parameters": fields}
    elif route.startswith("/v1"):
        path, body = "/v1/completions", {"model": NAME, "prompt": prompt, "stream": streams, **fields}
    else:
        path, body = route, {"model": NAME, "prompt": prompt, **fields}
    response = client.post(path, json=body)
    if response.status_code != 200:
        return response.status_code, ""
    if not streams:
        answer = response.json()
        if route.startswith("/v2"):
            return 200, answer["text_output"]
        return 200, (answer["choices"] if "choices" in answer else answer["completions"])[0]["text"]
    text = ""
    for name, event in read_events(response.text):
        if name == "" and event != "[DONE]":
            part = event["choices"][0] if "choices" in event else event
            text += part["text_output"] if "text_output" in part else part["text"]
    return 200, text


def refused(route: str) -> tuple[int, str]:
    return (400 if route in OPENAI else 422), ""


@pytest.mark.parametrize("route", ROUTES)
def test_an_empty_prompt_is_refused(route: str, client: TestClient) -> None:
    assert ask(client, route, "") == refused(route)
    assert ask(client, route, "xyz") == refused(route), "no token of this vocabulary"


@pytest.mark.parametrize("route", ROUTES)
def test_a_prompt_leaves_room_for_one_token(route: str, client: TestClient) -> None:
    prompt = "a" * (CONTEXT - 1)
    assert ask(client, route, prompt, max_tokens=1) == (200, "b")
    assert ask(client, route, prompt, max_tokens=2) == refused(route)
    assert ask(client, route, prompt + "a", max_tokens=1) == refused(route)


@pytest.mark.parametrize("route", ROUTES)
def test_no_tokens_are_asked_for_at_openais_route_alone(route: str, client: TestClient) -> None:
    assert ask(client, route, "a", max_tokens=0) == ((200, "") if route in OPENAI else refused(route))
    assert ask(client, route, "a", max_tokens=-1) == refused(route)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 1e-300},
        {"temperature": 1.5, "top_k": 1},
        {"temperature": 1.5, "top_p": 1e-9},
        {"temperature": 1.5, "min_p": 1.0},
    ],
    ids=str,
)
def test_these_select_the_most_probable_token(fields: dict[str, Any], route: str, client: TestClient) -> None:
    assert ask(client, route, "a", **fields) == (200, CYCLE[1:] + "a")


@pytest.mark.parametrize("seed", [0, 1, 2**53 - 1])
def test_a_seed_gives_the_same_text_at_every_route(seed: int, client: TestClient) -> None:
    fields = {"temperature": 2.0, "repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": -0.5}
    texts = {ask(client, route, "a", seed=seed, **fields) for route in ROUTES}
    assert len(texts) == 1
    assert texts != {ask(client, "/generate", "a", seed=seed + 1 if seed < 2 else 5, **fields)}


@pytest.mark.parametrize("route", ROUTES)
def test_openais_route_takes_seeds_of_64_bits(route: str, client: TestClient) -> None:
    for seed in (2**53, 2**63 - 1, -1):
        assert ask(client, route, "a", seed=seed)[0] == (200 if route in OPENAI else 422)
    assert ask(client, route, "a", seed=2**63) == refused(route)


@pytest.mark.parametrize("route", ROUTES)
def test_a_bias_of_100_selects_and_one_of_minus_100_excludes(route: str, client: TestClient) -> None:
    assert ask(client, route, "a", max_tokens=3, logit_bias={"2": 100}) == (200, "   ")
    _, text = ask(client, route, "a", temperature=2.0, seed=1, logit_bias={"0": -100, "1": -100})
    assert not set("ab") & set(text)
    assert ask(client, route, "a", logit_bias={"2": 101}) == refused(route)
    assert ask(client, route, "a", logit_bias={str(len(TOKENS) + 1): 1}) == refused(route)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("stop", "text"), [("b", ""), ("€", "b é"), ("a", CYCLE[1:]), ("never", CYCLE[1:] + "a")])
def test_a_stop_ends_the_text_before_it(stop: str, text: str, route: str, client: TestClient) -> None:
    assert ask(client, route, "a", stop=[stop]) == (200, text)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("num_tokens", "text"), [(3, "b "), (4, "b é"), (6, "b é"), (10, "b é€"), (11, "b é€😀")])
def test_a_character_that_is_not_complete_is_left_out(
    num_tokens: int, text: str, route: str, client: TestClient
) -> None:
    assert ask(client, route, "a", max_tokens=num_tokens) == (200, text)


@pytest.mark.parametrize("route", ROUTES)
def test_emoji_and_zero_characters_may_be_in_a_prompt(route: str, client: TestClient) -> None:
    assert ask(client, route, "a😀", max_tokens=2) == (200, ".a")
    assert ask(client, route, "a\0", max_tokens=1) == (200, "b"), "no token of this vocabulary"


def test_equal_prompts_of_a_list_have_equal_texts(client: TestClient) -> None:
    fields = {"model": NAME, "prompt": ["a", "a"], "seed": 3, "temperature": 2.0, "max_tokens": 9}
    completions = client.post("/generate", json=fields).json()["completions"]
    choices = client.post("/v1/completions", json=fields).json()["choices"]
    assert len({part["text"] for part in (*completions, *choices)}) == 1
