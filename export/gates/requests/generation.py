"""Requests to models that generate, and the check of their tokens and pixels for the same prompts and seeds.

Shapes: V vocabulary.
"""

import base64
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from export.candidate import Candidate
from export.errors import ExportError, MismatchError
from export.gates.backends import reference_backend
from export.gates.cases import Case
from export.gates.requests.checked_request import Body, CheckedRequest, ResponseCheck
from export.gates.requests.stable_draws import is_decided, reference_logits, sample, sampling_of
from service.contract.heads import LanguageModelHead
from service.engine.generation.logits import log_probability
from service.engine.verification.parity import compare
from service.tasks.generation.latents import sample_latents

# Of a variant, prompts so many characters further on are tried while a continuation is not decided.
SHIFT, MAX_SHIFTS = 5, 16


def prompt_cases(candidate: Candidate) -> Iterator[CheckedRequest]:
    """Greedy and sampled continuations of the test text, with every sampling parameter."""
    text = _prompt_text(candidate)
    alphabet = _vocabulary_prompts(candidate, _half(candidate))[: candidate.manifest.limits.max_items]
    for number, body in enumerate(_bodies(candidate, text, alphabet)):
        seeded = {"seed": 7, **body}
        if candidate.source.parent is not None:
            shifted = (_bodies(candidate, text[SHIFT * shift :], alphabet)[number] for shift in range(MAX_SHIFTS))
            decided = (_decided(candidate, {"seed": 7, **other}) for other in shifted)
            seeded = next((other for other in decided if other is not None), seeded)
        yield CheckedRequest(body=seeded, check=_completion_check(candidate, seeded))


def _half(candidate: Candidate) -> int:
    """Ordinary text has at most a token for each character, so that such prompts leave room for their continuation."""
    return (candidate.manifest.limits.max_steps or 1) // 2


def _bodies(candidate: Candidate, text: str, alphabet: list[str]) -> tuple[Body, ...]:
    half = _half(candidate)
    prompts = [text[len(text) * i // 8 :][: min(8 + 2 * i, half)] for i in range(8)]
    length = {"max_tokens": min(12, half)}
    return (
        {"prompt": prompts[0], "temperature": 0.0, **length},
        {"prompt": prompts[1], "temperature": 0.0, "logprobs": True, **length},
        {"prompt": prompts[2:5], "temperature": 0.0, **length},
        {"prompt": prompts[5], "temperature": 0.8, "logprobs": True, **length},
        {"prompt": prompts[6], "top_k": 5, "top_p": 0.9, **length},
        {"prompt": prompts[7], "stop": ["e", " t"], **length},
        {"prompt": alphabet, "temperature": 0.0, "logprobs": True, "max_tokens": 1},
    )


def _decided(candidate: Candidate, body: Body) -> Body | None:
    """The request with those of its prompts whose continuation is decided; None if there are none."""
    tokenizer, sampling = run_tokenizer(candidate), sampling_of(body)
    is_list = isinstance(body["prompt"], list)
    prompts = body["prompt"] if is_list else [body["prompt"]]
    decided = [
        prompt
        for prompt in prompts
        if is_decided(candidate, tokenizer.encode(prompt).ids, sampling, body["max_tokens"])
    ]
    return {**body, "prompt": decided if is_list else decided[0]} if decided else None


def _prompt_text(candidate: Candidate) -> str:
    """The text of the examples; without one, what their tokens spell."""
    examples = candidate.source.examples
    if examples.texts:
        return "".join(examples.texts)[: 1 << 20] if len(examples.texts) > 1 else examples.texts[0]
    tokenizer = run_tokenizer(candidate)
    return "".join(tokenizer.decode(ids.tolist()) for ids in examples.inputs["ids"][:64])


def _vocabulary_prompts(candidate: Candidate, max_tokens: int) -> list[str]:
    """Prompts that spell out the vocabulary of the run, of at most `max_tokens` tokens each.

    A token that is a part of a character cannot stand alone.
    """
    tokenizer = run_tokenizer(candidate)
    tokens = [tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size())]
    tokens = [text for text in tokens if "\N{REPLACEMENT CHARACTER}" not in text]
    texts = ["".join(tokens[i : i + max_tokens]) for i in range(0, len(tokens), max_tokens)]
    rows = tokenizer.encode_batch(texts)
    return [text for text, row in zip(texts, rows, strict=True) if 1 <= len(row.ids) <= max_tokens]


def run_tokenizer(candidate: Candidate) -> Tokenizer:
    """The tokenizer of the run, whatever the candidate's is. Raises ExportError if the run has none."""
    if candidate.source.tokenizer is None:
        raise ExportError("requests", "a model of texts needs a tokenizer, its source has none")
    return Tokenizer.from_str(candidate.source.tokenizer)


def _completion_check(candidate: Candidate, body: Body) -> ResponseCheck:
    """Each token must be the one that the sampler draws from the reference's logits, of full forward passes."""
    tokenizer, sampling = run_tokenizer(candidate), sampling_of(body)
    head, reference = candidate.manifest.head, candidate.source.reference
    tolerance = candidate.manifest.tolerance["logits"]
    end_ids = frozenset(head.eos_ids if isinstance(head, LanguageModelHead) else ())

    def check(response: dict[str, Any]) -> None:
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        if len(response["completions"]) != len(prompts):
            raise MismatchError(f"{len(response['completions'])} completions for {len(prompts)} prompts")
        for i, (prompt, completion) in enumerate(zip(prompts, response["completions"], strict=True)):
            ids = tokenizer.encode(prompt).ids
            start = len(ids)
            for step in range(completion["tokens"]):
                logits_V = reference_logits(candidate, ids)
                ids.append(sample(logits_V, sampling, len(ids)))
                if ids[-1] in end_ids:
                    raise MismatchError(f"prompt {i}, token {step}: {reference} ends the text here")
                if "logprobs" in completion:
                    actual, expected = completion["logprobs"][step]["logprob"], log_probability(logits_V, ids[-1])
                    if not abs(actual - expected) <= 2 * (tolerance.atol + tolerance.rtol * abs(expected)):
                        raise MismatchError(
                            f"prompt {i}, token {step}: log probability {actual:.6f}, {reference} has {expected:.6f}"
                        )
            expected_text = tokenizer.decode(ids[start:])
            stops = [expected_text.find(stop) for stop in body.get("stop", []) if stop in expected_text]
            expected_text = expected_text[: min(stops)] if stops else expected_text
            # The service leaves out the first bytes of a character that the last token does not complete.
            expected_text = expected_text.rstrip("\N{REPLACEMENT CHARACTER}")
            if completion["text"] != expected_text:
                raise MismatchError(
                    f"prompt {i}: continued with {completion['text']!r}, {reference} gives {expected_text!r}"
                )
            if completion["finish_reason"] == "stop" and not stops:
                following = sample(reference_logits(candidate, ids), sampling, len(ids))
                if following not in end_ids:
                    raise MismatchError(f"prompt {i}: ends after {len(ids) - start} tokens, {reference} continues")

    return check


def image_cases(candidate: Candidate) -> Iterator[CheckedRequest]:
    """One image to four, from several seeds."""
    size = candidate.manifest.inputs[0].shape[1]
    assert isinstance(size, int)
    for count, seed in ((1, 0), (1, 1), (2, 7), (3, 2**32), (4, 11)):

        def check(response: dict[str, Any], count: int = count, seed: int = seed) -> None:
            case = Case(name="request", inputs={"latents": sample_latents(seed, count, size)})
            expected = reference_backend(candidate.source)(case)["images"]
            actual = np.stack([np.asarray(Image.open(BytesIO(base64.b64decode(text)))) for text in response["images"]])
            difference = compare(expected, actual, atol=0, rtol=0)
            if not difference.within:
                raise MismatchError(
                    f"pixels are {difference.worst:g} away from {candidate.source.reference}: {difference.detail}"
                )

        yield CheckedRequest(body={"count": count, "seed": seed}, check=check)
