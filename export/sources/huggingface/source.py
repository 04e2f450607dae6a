"""A saved model of `transformers` as a source: the reference is the model itself, the rest is read off its files.

Its contract, labels and limits come from config.json, its tokenizer from tokenizer.json, its picture sizes from
preprocessor_config.json. The smallest of all limits on tokens counts.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from export.errors import ExportError
from export.graph.recurrent import OPSET
from export.source import Array, Predict, Source
from export.sources.float64 import float64_twin
from export.sources.huggingface import causal, encoders, examples
from export.sources.huggingface.chat import read_chat_template
from export.sources.huggingface.loading import STAGE, load_model, unsupported
from export.sources.huggingface.pooling import read_pooling
from export.sources.huggingface.tokenizer import TOKENIZER, read_tokenizer
from export.sources.huggingface.vision import read_pictures
from export.sources.run import exporter_versions
from service.contract.heads import (
    EmbeddingHead,
    Head,
    LabelsHead,
    LanguageModelHead,
    MultilabelHead,
    TokenLabelsHead,
    ValuesHead,
)
from service.contract.readers import ImageReader, TextReader
from service.contract.tensors import Specs, float32
from service.manifest import Provenance, RequestLimits
from training.token_cases import choose_cases

# Cached keys and values, and the logits of a vocabulary, add up more terms than a classifier does.
CACHED_TOLERANCE = 5e-5
MAX_TEXTS, MAX_PROMPTS, MAX_PICTURES = 64, 16, 32
HASHED = (
    "*.safetensors", "config.json", "generation_config.json", TOKENIZER, "tokenizer_config.json", "*.jinja",
    "preprocessor_config.json",
)  # fmt: skip


def read_folder(
    folder: Path,
    task: str,
    *,
    name: str | None = None,
    max_steps: int | None = None,
    examples_path: Path | None = None,
) -> Source:
    """The source of a folder that save_pretrained wrote. `task` is a key of `TASKS`. Raises ExportError."""
    name = name or re.sub("[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    request = Request(folder=folder, task=task, name=name, max_steps=max_steps, examples=examples_path)
    return TASKS[task](request)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for."""

    folder: Path
    task: str
    name: str
    max_steps: int | None
    examples: Path | None


def _sequence_classification(request: Request) -> Source:
    model = load_model(request.folder, request.task)
    labels, kind = read_labels(model, request.folder), getattr(model.config, "problem_type", None)
    if kind == "regression" or (kind is None and len(labels) == 1):
        head: Head = ValuesHead(names=labels, units=("",) * len(labels))
        return _text_source(request, model, encoders.Regressor(model), head)
    if kind == "multi_label_classification":
        return _text_source(request, model, encoders.MultilabelClassifier(model), MultilabelHead(labels=labels))
    return _text_source(request, model, encoders.LabelClassifier(model), LabelsHead(labels=labels))


def _token_classification(request: Request) -> Source:
    model = load_model(request.folder, request.task)
    head = TokenLabelsHead(labels=read_labels(model, request.folder))
    return _text_source(request, model, encoders.LabelClassifier(model), head)


def _feature_extraction(request: Request) -> Source:
    pooling = read_pooling(request.folder)
    model = load_model(pooling.transformer, request.task)
    if model.config.is_encoder_decoder:
        raise unsupported(model, "has an encoder and a decoder, expected an encoder")
    head = EmbeddingHead(size=model.config.hidden_size, normalized=pooling.normalized)
    return _text_source(request, model, encoders.Embedder(model, pooling), head, limit=pooling.max_steps)


def _image_classification(request: Request) -> Source:
    model = load_model(request.folder, request.task)
    labels = read_labels(model, request.folder)
    reader, module = read_pictures(request.folder, model)
    head = LabelsHead(labels=labels)
    split, origin = examples.read_pictures(request.examples, reader)
    return Source(
        **_common(request, model, origin),
        **_references(module, reader.inputs, outputs := _outputs(head, reader)),
        reader=reader,
        head=head,
        inputs=reader.inputs,
        outputs=outputs,
        limits=RequestLimits(max_items=MAX_PICTURES),
        examples=split,
    )


def _text_generation(request: Request) -> Source:
    model = load_model(request.folder, request.task)
    tokenizer = read_tokenizer(request.folder, cuts=False)
    context = _max_steps(request, model, tokenizer.max_steps)
    shape, reader = causal.cache_shape(model), _text_reader(model)
    bos_id, eos_ids = causal.read_ends(request.folder, model)
    head = LanguageModelHead(
        layers=shape.layers,
        heads=shape.heads,
        head_size=shape.head_size,
        bos_id=bos_id,
        eos_ids=eos_ids,
        chat_template=read_chat_template(request.folder, tokenizer.content),
    )
    texts, origin = examples.read_texts(request.examples, tokenizer, context)
    split = examples.window_split(texts, tokenizer, context)
    outputs = head.outputs(reader)

    def predict_with(decoder: Any) -> Predict:
        def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
            tensors = causal.full_forward(decoder.model, _tensor(inputs["ids"]))
            return {spec.name: tensor.numpy() for spec, tensor in zip(outputs, tensors, strict=True)}

        return predict

    module = causal.CausalDecoder(model, context)
    return Source(
        **_common(request, model, origin),
        predict=predict_with(module),
        predict_float64=_in_float64(module, predict_with),
        module=module,
        reader=reader,
        head=head,
        inputs=head.inputs,
        outputs=outputs,
        limits=RequestLimits(max_items=MAX_PROMPTS, max_steps=context),
        examples=split,
        tokenizer=tokenizer.content,
        tokens=choose_cases(tokenizer.content, split),
        atol=CACHED_TOLERANCE,
    )


TASKS: dict[str, Callable[[Request], Source]] = {
    "sequence-classification": _sequence_classification,
    "token-classification": _token_classification,
    "feature-extraction": _feature_extraction,
    "image-classification": _image_classification,
    "text-generation": _text_generation,
}


def _text_source(
    request: Request, model: PreTrainedModel, module: nn.Module, head: Head, *, limit: int | None = None
) -> Source:
    """The source of an encoder."""
    tokenizer = read_tokenizer(request.folder, cuts=True)
    max_steps = _max_steps(request, model, tokenizer.max_steps, limit)
    texts, origin = examples.read_texts(request.examples, tokenizer, max_steps)
    split = examples.text_split(texts, tokenizer, max_steps)
    reader = _text_reader(model)
    outputs = _outputs(head, reader)
    return Source(
        **_common(request, model, origin),
        **_references(module, reader.inputs, outputs),
        reader=reader,
        head=head,
        inputs=reader.inputs,
        outputs=outputs,
        limits=RequestLimits(max_items=MAX_TEXTS, max_steps=max_steps),
        examples=split,
        tokenizer=tokenizer.content,
        tokens=choose_cases(tokenizer.content, split),
    )


def read_labels(model: PreTrainedModel, folder: Path) -> tuple[str, ...]:
    """The labels of config.json, in the order of the outputs. Raises ExportError if two are equal or one is absent."""
    names: dict[int, str] = model.config.id2label
    if sorted(names) != list(range(len(names))):
        raise ExportError(STAGE, f"{folder / 'config.json'}: id2label has the ids {sorted(names)}, expected 0, 1, ...")
    labels = tuple(names[i] for i in range(len(names)))
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ExportError(STAGE, f"{folder / 'config.json'}: id2label has the label {twice[0]!r} twice")
    return labels


def position_limit(model: PreTrainedModel) -> int | None:
    """The most tokens for which the model has positions, or None if config.json does not say."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # The positions of RoBERTa start behind that of padding.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    limit: int | None = getattr(model.config, "max_position_embeddings", None)
    return limit


def _max_steps(request: Request, model: PreTrainedModel, *limits: int | None) -> int:
    """The smallest limit; the command line may lower it. Raises ExportError."""
    known = [limit for limit in (*limits, position_limit(model)) if limit is not None]
    if request.max_steps is None:
        if not known:
            raise ExportError(STAGE, f"{request.folder} gives no limit on tokens: give it with --max-steps")
        return min(known)
    if request.max_steps > min(known, default=request.max_steps):
        raise ExportError(STAGE, f"--max-steps is {request.max_steps}, the model takes at most {min(known)} tokens")
    return request.max_steps


def _text_reader(model: PreTrainedModel) -> TextReader:
    embedding: Any = model.get_input_embeddings()
    return TextReader(vocabulary=embedding.num_embeddings)


def _outputs(head: Head, reader: TextReader | ImageReader) -> Specs:
    """The outputs of the head, behind the logits of probabilities."""
    outputs = head.outputs(reader)
    [spec] = outputs
    return (float32("logits", *spec.shape), spec) if spec.name == "probabilities" else outputs


def _references(module: nn.Module, inputs: Specs, outputs: Specs) -> dict[str, Any]:
    """The module to trace, and itself in eager mode as the reference."""

    def predict_with(model: nn.Module) -> Predict:
        def predict(arrays: Mapping[str, Array]) -> dict[str, Array]:
            with torch.no_grad():
                tensors = model(*[_tensor(arrays[spec.name]) for spec in inputs])
            return {spec.name: tensor.numpy() for spec, tensor in zip(outputs, tensors, strict=True)}

        return predict

    return {
        "module": module,
        "predict": predict_with(module),
        "predict_float64": _in_float64(module, predict_with),
    }


def _tensor(array: Array) -> torch.Tensor:
    """The array as a tensor; PyTorch warns of one that cannot be written to."""
    return torch.from_numpy(np.require(array, requirements=["W"]))


def _in_float64(module: nn.Module, predict_with: Callable[[nn.Module], Predict]) -> Predict:
    """The reference in float64; the copy of the weights is made when it is first asked for."""

    build = cache(lambda: predict_with(float64_twin(module)))

    def predict(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return build()(arrays)

    return predict


def _common(request: Request, model: PreTrainedModel, origin: examples.Origin) -> dict[str, Any]:
    """The fields that do not depend on the task."""
    hashes = {
        str(file.relative_to(request.folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for pattern in HASHED
        for file in sorted(request.folder.rglob(pattern))
    }
    if origin.sha256 is not None:
        hashes[origin.name] = origin.sha256
    versions = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}
    return {
        "name": request.name,
        "summary": f"A {type(model).__name__} for {request.task}.",
        "note": origin.note,
        "has_data": origin.sha256 is not None,
        "provenance": Provenance(
            recipe="hf",
            reference="transformers",
            commit="unknown",
            seed=0,
            steps=0,
            dataset=origin.name,
            data=hashes,
            metrics={},
            versions=exporter_versions() | versions,
            opset=OPSET,
        ),
    }
