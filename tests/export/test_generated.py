"""The check of a generated answer follows every token and pixel."""

import base64
import copy
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from export.asked import MismatchError
from export.generated import drawn, prompts
from service.tasks.replay import answer_request_sync
from tests.export.conftest import Candidates


def test_every_way_of_sampling_is_asked_for_and_agrees(candidates: Candidates) -> None:
    candidate = candidates("tiny-prenorm")
    bodies = []
    for asked in prompts(candidate):
        asked.check(answer_request_sync(served(candidate), {"model": candidate.manifest.name, **asked.body}))
        bodies.append(asked.body)
    assert {"top_k", "top_p", "stop", "logprobs"} <= {key for body in bodies for key in body}
    assert any(isinstance(body["prompt"], list) for body in bodies)
    assert any(body.get("temperature") == 0 for body in bodies)


def test_another_token_or_log_probability_is_found(candidates: Candidates) -> None:
    candidate = candidates("tiny-prenorm")
    asked = list(prompts(candidate))[1]
    answer = answer_request_sync(served(candidate), {"model": candidate.manifest.name, **asked.body})
    wrong_text, wrong_number = copy.deepcopy(answer), copy.deepcopy(answer)
    text = answer["completions"][0]["text"]
    wrong_text["completions"][0]["text"] = text[:-1] + ("a" if text[-1] != "a" else "b")
    wrong_number["completions"][0]["logprobs"][2]["logprob"] -= 0.01
    with pytest.raises(MismatchError, match=r"prompt 0: continued with .* PyTorch gives"):
        asked.check(wrong_text)
    with pytest.raises(MismatchError, match="prompt 0, token 2: log probability"):
        asked.check(wrong_number)


def test_another_pixel_is_found(candidates: Candidates) -> None:
    candidate = candidates("tiny-gan")
    asked = next(drawn(candidate))
    answer = answer_request_sync(served(candidate), {"model": candidate.manifest.name, **asked.body})
    asked.check(copy.deepcopy(answer))
    pixels = np.array(Image.open(BytesIO(base64.b64decode(answer["images"][0]))))
    pixels[3, 4] ^= 64
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    answer["images"][0] = base64.b64encode(buffer.getvalue()).decode()
    with pytest.raises(MismatchError, match=r"pixels are 64 away from PyTorch's: .* at \[0, 3, 4\]"):
        asked.check(answer)
