"""The check of a generated response covers every token, log probability and pixel."""

import base64
import copy
import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from export.errors import ExportError, MismatchError
from export.gates.requests.checked_request import candidate_model
from export.gates.requests.generation import image_cases, prompt_cases
from service.tasks.replay import answer_request_sync
from tests.export.conftest import Candidates
from tests.export.tiny import CHARACTERS


def test_requests_cover_every_sampling_parameter_and_agree(candidates: Candidates) -> None:
    candidate = candidates("tiny-prenorm")
    bodies = []
    for request in prompt_cases(candidate):
        request.check(
            answer_request_sync(candidate_model(candidate), {"model": candidate.manifest.name, **request.body})
        )
        bodies.append(request.body)
    assert {"top_k", "top_p", "stop", "logprobs"} <= {key for body in bodies for key in body}
    assert any(isinstance(body["prompt"], list) for body in bodies)
    assert any(body.get("temperature") == 0 for body in bodies)
    assert set(CHARACTERS) <= set("".join(bodies[-1]["prompt"]))
    assert bodies[-1]["max_tokens"] == 1


def test_the_check_does_not_use_the_tokenizer_of_the_candidate(candidates: Candidates) -> None:
    candidate = candidates("tiny-prenorm")
    request = next(prompt_cases(replace(candidate, tokenizer="not read")))
    request.check(answer_request_sync(candidate_model(candidate), {"model": candidate.manifest.name, **request.body}))
    with pytest.raises(ExportError, match="requests: a model of texts needs a tokenizer, its source has none"):
        next(prompt_cases(replace(candidate, source=replace(candidate.source, tokenizer=None))))


def test_a_wrong_token_or_log_probability_is_a_mismatch(candidates: Candidates) -> None:
    candidate = candidates("tiny-prenorm")
    request = list(prompt_cases(candidate))[1]
    response = answer_request_sync(candidate_model(candidate), {"model": candidate.manifest.name, **request.body})
    wrong_text, wrong_logprob = copy.deepcopy(response), copy.deepcopy(response)
    text = response["completions"][0]["text"]
    wrong_text["completions"][0]["text"] = text[:-1] + ("a" if text[-1] != "a" else "b")
    wrong_logprob["completions"][0]["logprobs"][2]["logprob"] -= 0.01
    with pytest.raises(MismatchError, match=r"prompt 0: continued with .* PyTorch gives"):
        request.check(wrong_text)
    with pytest.raises(MismatchError, match="prompt 0, token 2: log probability"):
        request.check(wrong_logprob)


def test_a_text_ends_where_the_model_ends_it_and_nowhere_else(candidates: Candidates) -> None:
    candidate = candidates("tiny-prenorm")
    request = list(prompt_cases(candidate))[1]
    response = answer_request_sync(candidate_model(candidate), {"model": candidate.manifest.name, **request.body})
    [completion] = response["completions"]
    third = CHARACTERS.index(completion["logprobs"][2]["token"])
    head = candidate.manifest.head.model_copy(update={"eos_ids": (third,)})
    ending = replace(candidate, manifest=candidate.manifest.model_copy(update={"head": head}))
    ended = list(prompt_cases(ending))[1]
    ended.check(answer_request_sync(candidate_model(ending), {"model": candidate.manifest.name, **request.body}))
    with pytest.raises(MismatchError, match=r"prompt 0, token \d: PyTorch ends the text here"):
        ended.check(response)
    shorter = {**completion, "finish_reason": "stop", "tokens": 1, "text": completion["text"][:1]}
    with pytest.raises(MismatchError, match="prompt 0: ends after 1 tokens, PyTorch continues"):
        request.check({"completions": [shorter]})


def test_a_text_that_ends_within_a_character_ends_before_it(candidates: Candidates) -> None:
    candidate = candidates("tiny-prenorm")
    whole, source = next(prompt_cases(candidate)), candidate.source
    model_name = candidate.manifest.name
    text = answer_request_sync(candidate_model(candidate), {"model": model_name, **whole.body})["completions"][0][
        "text"
    ]
    saved = json.loads(source.tokenizer or "")
    incomplete = {"type": "Replace", "pattern": {"String": text[-1]}, "content": "\N{REPLACEMENT CHARACTER}"}
    tokenizer = json.dumps({**saved, "decoder": {"type": "Sequence", "decoders": [incomplete, {"type": "Fuse"}]}})
    # The prompts stay those of the whole characters.
    examples = replace(source.examples, texts=(whole.body["prompt"] * 16,))
    cut = replace(candidate, tokenizer=tokenizer, source=replace(source, tokenizer=tokenizer, examples=examples))
    request = next(prompt_cases(cut))
    assert request.body == whole.body
    response = answer_request_sync(candidate_model(cut), {"model": model_name, **request.body})
    assert response["completions"][0]["text"] == text.replace(text[-1], "\N{REPLACEMENT CHARACTER}").rstrip(
        "\N{REPLACEMENT CHARACTER}"
    )
    request.check(response)


def test_a_missing_completion_is_a_mismatch(candidates: Candidates) -> None:
    candidate = candidates("tiny-prenorm")
    request = next(prompt_cases(candidate))
    response = answer_request_sync(candidate_model(candidate), {"model": candidate.manifest.name, **request.body})
    response["completions"].pop()
    with pytest.raises(MismatchError, match="0 completions for 1 prompts"):
        request.check(response)


def test_a_wrong_pixel_is_a_mismatch(candidates: Candidates) -> None:
    candidate = candidates("tiny-gan")
    request = next(image_cases(candidate))
    response = answer_request_sync(candidate_model(candidate), {"model": candidate.manifest.name, **request.body})
    request.check(copy.deepcopy(response))
    pixels = np.array(Image.open(BytesIO(base64.b64decode(response["images"][0]))))
    pixels[3, 4] ^= 64
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    response["images"][0] = base64.b64encode(buffer.getvalue()).decode()
    with pytest.raises(MismatchError, match=r"pixels are 64 away from PyTorch: .* at \[0, 3, 4\]"):
        request.check(response)
