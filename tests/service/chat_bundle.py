"""A tiny language model with a chat template whose most probable text is known: it repeats CYCLE, byte by byte."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from service.bundle import GoldenCase, RequestCase
from service.engine.sessions.model import Model
from service.manifest import TOKENIZER
from service.tasks.generation.token_text import BYTE_OF
from service.tasks.replay import answer_request_sync
from tests.service.bundles import bundle_files, example_inputs, manifest_fields, onnx_model, weights, write_bundle

NAME = "tiny-chat"
CYCLE = "ab é€😀."
END = "<end>"
TOKENS = CYCLE.encode()  # every byte once
VOCABULARY = len(TOKENS) + 1
END_ID = len(TOKENS)
TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "{{ message.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}a{% endif %}"
)
HEAD = {"chat_template": {"source": TEMPLATE, "special_tokens": {"eos_token": END}}, "eos_ids": (END_ID,)}


@functools.cache
def chat_model() -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(onnx_model("language-model"))
    angles = np.arange(VOCABULARY) * 2 * np.pi / VOCABULARY
    circle = np.zeros((VOCABULARY, 8), np.float32)
    circle[:, 0], circle[:, 1] = 6 * np.cos(angles), 6 * np.sin(angles)
    # The id of the end is followed by the first byte, and the last byte as well.
    following = np.roll(circle, 1, axis=0)
    following[0] = circle[END_ID - 1]
    following[END_ID] *= 0.1
    changes: dict[str, Any] = {"embedding": circle, "head": following.T.copy()}
    changes |= {
        name: value * 0.01 for name, value in weights("language-model").items() if name == "positions" or "_w_" in name
    }
    for initializer in model.graph.initializer:
        if initializer.name in changes:
            initializer.CopyFrom(onnx.numpy_helper.from_array(changes[initializer.name], initializer.name))
    for output in model.graph.output:
        if output.name == "logits":
            output.type.tensor_type.shape.dim[2].dim_value = VOCABULARY
    onnx.checker.check_model(model, full_check=True)
    return model


@functools.cache
def chat_tokenizer() -> Tokenizer:
    character_of = {byte: character for character, byte in BYTE_OF.items()}
    vocabulary = {character_of[byte]: i for i, byte in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    return tokenizer


def write_chat_bundle(root: Path, requests: list[RequestCase] | None = None) -> Path:
    """Write the bundle and return its folder."""
    fields = manifest_fields("language-model")
    model = chat_model().SerializeToString(deterministic=True)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    cases = []
    for batch in (1, 3):
        inputs = example_inputs("language-model", batch=batch, seed=batch)
        inputs["ids"] %= VOCABULARY
        cases.append(GoldenCase(inputs=inputs, outputs=dict(zip(names, session.run(names, inputs), strict=True))))
    files = bundle_files(
        "language-model",
        golden=cases,
        model=model,
        requests=requests or [RequestCase(request={"model": NAME}, answer={})],
    )
    files[TOKENIZER] = chat_tokenizer().to_str().encode()
    outputs = [
        spec.model_copy(update={"shape": ("batch", "steps", VOCABULARY)}) if spec.name == "logits" else spec
        for spec in fields["outputs"]
    ]
    return write_bundle(
        root,
        "language-model",
        files=files,
        name=NAME,
        reader={**fields["reader"], "vocabulary": VOCABULARY},
        head={**fields["head"], **HEAD},
        outputs=outputs,
    )


def answered_case(model: Model) -> RequestCase:
    request = {"model": NAME, "prompt": "a", "temperature": 0, "max_tokens": 9, "seed": 1, "logprobs": True}
    return RequestCase(request=request, answer=answer_request_sync(model, request))
