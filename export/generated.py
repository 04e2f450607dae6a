"""Request bodies for models that generate, and what PyTorch makes of the same prompts and seeds."""

import base64
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from tokenizers import Tokenizer

from export.answers import by_torch
from export.asked import Asked, Body, Check, MismatchError
from export.candidate import Candidate
from export.cases import Array, Case
from service.engine.generation.sampling import Sampling, log_probability, sample
from service.engine.verification.parity import compare
from service.families import ImageGenerator
from service.tasks.generate import sample_latents
from training.families import FAMILIES


def prompts(candidate: Candidate) -> Iterator[Asked]:
    text = candidate.run.test.texts[0]
    half = (candidate.manifest.limits.max_steps or 1) // 2  # a token is at least a character
    starts = [text[len(text) * i // 8 :][: min(8 + 2 * i, half)] for i in range(8)]
    most = {"max_tokens": min(12, half)}
    for body in (
        {"prompt": starts[0], "temperature": 0.0, **most},
        {"prompt": starts[1], "temperature": 0.0, "logprobs": True, **most},
        {"prompt": starts[2:5], "temperature": 0.0, **most},
        {"prompt": starts[5], "temperature": 0.8, "logprobs": True, **most},
        {"prompt": starts[6], "top_k": 5, "top_p": 0.9, **most},
        {"prompt": starts[7], "stop": ["e", " t"], **most},
    ):
        seeded = {"seed": 7, **body}
        yield Asked(body=seeded, check=_continued(candidate, seeded))


def _continued(candidate: Candidate, body: Body) -> Check:
    """Each token is the one that PyTorch's logits, from full forward passes, and the same draw give."""
    assert candidate.run.tokenizer is not None
    tokenizer = Tokenizer.from_str(candidate.run.tokenizer)
    sampling = Sampling(
        temperature=body.get("temperature", 1.0),
        top_k=body.get("top_k", 0),
        top_p=body.get("top_p", 1.0),
        seed=body["seed"],
    )
    tolerance = candidate.manifest.tolerance["logits"]

    def logits(ids: Sequence[int]) -> Array:
        answer = FAMILIES[candidate.run.recipe.family].answer(candidate.run.model, {"ids": torch.tensor([ids])})
        return answer["logits"][0, -1].numpy()

    def check(answer: dict[str, Any]) -> None:
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        for i, (prompt, completion) in enumerate(zip(prompts, answer["completions"], strict=True)):
            ids = tokenizer.encode(prompt).ids
            start = len(ids)
            for step in range(completion["tokens"]):
                scores_V = logits(ids)
                ids.append(sample(scores_V, sampling, len(ids)))
                if "logprobs" in completion:
                    said, expected = completion["logprobs"][step]["logprob"], log_probability(scores_V, ids[-1])
                    if not abs(said - expected) <= 2 * (tolerance.atol + tolerance.rtol * abs(expected)):
                        raise MismatchError(
                            f"prompt {i}, token {step}: log probability {said:.6f}, PyTorch has {expected:.6f}"
                        )
            expected_text = tokenizer.decode(ids[start:])
            ends = [expected_text.find(stop) for stop in body.get("stop", []) if stop in expected_text]
            expected_text = expected_text[: min(ends)] if ends else expected_text
            if completion["text"] != expected_text:
                raise MismatchError(
                    f"prompt {i}: continued with {completion['text']!r}, PyTorch gives {expected_text!r}"
                )

    return check


def drawn(candidate: Candidate) -> Iterator[Asked]:
    parameters = candidate.manifest.parameters
    assert isinstance(parameters, ImageGenerator)
    size = parameters.latent_size
    for count, seed in ((1, 0), (1, 1), (2, 7), (3, 2**32), (4, 11)):

        def check(answer: dict[str, Any], count: int = count, seed: int = seed) -> None:
            case = Case(name="request", inputs={"latents": sample_latents(seed, count, size)})
            expected = by_torch(candidate.run)(case)["images"]
            given = np.stack([np.asarray(Pillow.open(BytesIO(base64.b64decode(text)))) for text in answer["images"]])
            difference = compare(expected, given, atol=0, rtol=0)
            if not difference.within:
                raise MismatchError(f"pixels are {difference.worst:g} away from PyTorch's: {difference.detail}")

        yield Asked(body={"count": count, "seed": seed}, check=check)
