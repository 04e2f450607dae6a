"""Every corruption of an export is refused by the gates that `python -m export` runs."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from export.candidate import Candidate, build_candidate
from export.errors import ExportError
from export.gates.parity import check_parity
from export.gates.proof import prove
from export.graph.cached_decoder import CachedDecoder
from export.graph.exporter import export_program, strip_metadata
from export.sources.run import PositionalModel, run_source
from tests.export.conftest import Candidates
from training.families import FAMILIES

Corrupt = Callable[[Candidate], Candidate]


def edited(change: Callable[[onnx.GraphProto], None]) -> Corrupt:
    """A corruption that edits the graph."""

    def corrupt(candidate: Candidate) -> Candidate:
        model = onnx.load_from_string(candidate.model)
        change(model.graph)
        assert model.SerializeToString() != candidate.model
        return replace(candidate, model=model.SerializeToString())

    return corrupt


def traced(corrupt: Callable[[Candidate], nn.Module]) -> Corrupt:
    """A corruption that exports another module in the place of the run's."""
    return lambda candidate: replace(
        candidate, model=strip_metadata(export_program(candidate.source, module=corrupt(candidate)))
    )


def weight(part: str, change: Callable[[Any], Any]) -> Corrupt:
    """A corruption that changes the first constant whose name contains `part`."""

    def apply(graph: onnx.GraphProto) -> None:
        tensor = next(tensor for tensor in graph.initializer if part in tensor.name)
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))

    return edited(apply)


def nodes(graph: onnx.GraphProto, operator: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == operator]


def swap_gates(graph: onnx.GraphProto) -> None:
    name = nodes(graph, "LSTM")[0].input[1]
    tensor = next(tensor for tensor in graph.initializer if tensor.name == name)
    # The result has PyTorch's order in the place of ONNX's.
    gates = np.split(numpy_helper.to_array(tensor), 4, axis=1)
    tensor.CopyFrom(numpy_helper.from_array(np.concatenate([gates[i] for i in (0, 2, 3, 1)], axis=1), name))


def freeze_steps(graph: onnx.GraphProto) -> None:
    next(value for value in graph.input if value.name == "series").type.tensor_type.shape.dim[1].dim_value = 4


def normalise_over_batch(graph: onnx.GraphProto) -> None:
    [softmax] = nodes(graph, "Softmax")
    softmax.attribute[0].i = 0


def swap_outputs(graph: onnx.GraphProto) -> None:
    names = {"logits": "probabilities", "probabilities": "logits"}
    for node in graph.node:
        for names_of in (node.input, node.output):
            for i, name in enumerate(names_of):
                names_of[i] = names.get(name, name)


def ignore_lengths(graph: onnx.GraphProto) -> None:
    for lstm in nodes(graph, "LSTM"):
        lstm.input[4] = ""


def swap_states(graph: onnx.GraphProto) -> None:
    lstm = nodes(graph, "LSTM")[0]
    lstm.input[5], lstm.input[6] = lstm.input[6], lstm.input[5]


def drop_mask(operator: str) -> Callable[[onnx.GraphProto], None]:
    """Change the comparison that computes a mask, so that the mask hides nothing."""

    def change(graph: onnx.GraphProto) -> None:
        [node] = nodes(graph, operator)
        node.input[0] = node.input[1]
        node.op_type = {"GreaterOrEqual": "Less", "LessOrEqual": "Equal", "Less": "Equal"}[operator]

    return change


def round_down(graph: onnx.GraphProto) -> None:
    [node] = nodes(graph, "Round")
    node.op_type = "Floor"


def change_domain(graph: onnx.GraphProto) -> None:
    graph.node[-1].domain = "com.example"


class Unrolled(nn.Module):
    """A series classifier with one node per step, for the four steps of the example."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        series, lengths = inputs
        rnn, steps = self.model.ragged.rnn, self.model.standardize(series).transpose(0, 1)
        rows = [steps.index_select(0, torch.tensor([t])).squeeze(0) for t in range(4)]
        for layer in range(rnn.num_layers):
            wi, wh, bi, bh = (
                getattr(rnn, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            h = torch.zeros(len(series), rnn.hidden_size)
            outputs = []
            for x in rows:
                h = torch.tanh(x @ wi.T + bi + h @ wh.T + bh)
                outputs.append(h)
            rows = outputs
        logits = self.model.head(rows[-1]) + 0 * lengths[:, None]
        return logits, logits.softmax(-1)


class BatchStatistics(nn.Module):
    """A BatchNorm in training mode, which normalises with the statistics of the batch."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        axes = [0, *range(2, x.dim())]
        mean, variance = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, correction=0)
        shape = [1, -1] + [1] * (x.dim() - 2)
        weight, bias = self.norm.weight.reshape(shape), self.norm.bias.reshape(shape)
        return (x - mean) / (variance + self.norm.eps).sqrt() * weight + bias


def training_mode(candidate: Candidate) -> nn.Module:
    model: Any = copy.deepcopy(candidate.source.run.model)
    layers = model.generator if candidate.source.run.recipe.family == "image-generator" else model.layers
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layers[i] = BatchStatistics(layer)
    return PositionalModel(FAMILIES[candidate.source.run.recipe.family], model)


class NextPosition(CachedDecoder):
    """Adds one to every position."""

    def _positions(self, steps_BS: Tensor) -> Tensor:
        return super()._positions(steps_BS + 1)


class ReadsGarbage(CachedDecoder):
    """Attends to the whole cache and ignores `past_lengths`."""

    def _attend(self, attention: Any, x_BSD: Tensor, past_BHPK: Any, visible: Any) -> tuple[Tensor, Tensor, Tensor]:
        return super()._attend(attention, x_BSD, past_BHPK, (torch.ones_like(visible[0]), visible[1]))


class IgnoresPast(CachedDecoder):
    """Attends to the new steps only."""

    def _attend(self, attention: Any, x_BSD: Tensor, past_BHPK: Any, visible: Any) -> tuple[Tensor, Tensor, Tensor]:
        return super()._attend(attention, x_BSD, past_BHPK, (torch.zeros_like(visible[0]), visible[1]))


def permute_labels(candidate: Candidate) -> Candidate:
    labels = candidate.manifest.labels
    head = candidate.manifest.head.model_copy(update={"labels": (*labels[1:], labels[0])})
    return replace(candidate, manifest=candidate.manifest.model_copy(update={"head": head}))


def shift_tokens(candidate: Candidate) -> Candidate:
    assert candidate.tokenizer is not None
    tokenizer = json.loads(candidate.tokenizer)
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {word: (i + 1) % len(vocabulary) for word, i in vocabulary.items()}
    return replace(candidate, tokenizer=json.dumps(tokenizer))


def inflate_metric(candidate: Candidate) -> Candidate:
    metrics = {**candidate.source.run.checkpoint.metrics, "test_accuracy": 0.99}
    run = replace(candidate.source.run, checkpoint=replace(candidate.source.run.checkpoint, metrics=metrics))
    return build_candidate(run_source(run), candidate.model)


def scaled(array: Any) -> Any:
    return array * np.float32(1.01)


CORRUPTIONS: dict[str, tuple[str, Corrupt, str]] = {
    "a weight scaled by 1 %": ("tiny-picture", weight("6.weight", scaled), "parity: output 'logits'"),
    "an attention weight scaled by 1 %": ("tiny-language", weight("in_proj", scaled), "parity: output"),
    "a weight that is not a number": ("tiny-lstm", weight("head", lambda a: a * np.nan), "parity: output 'logits'"),
    "gates permuted": ("tiny-lstm", edited(swap_gates), "parity: output 'logits'"),
    "a frozen sequence axis": ("tiny-rnn", edited(freeze_steps), "structure: input 'series': axis 'steps'"),
    "an unrolled RNN": ("tiny-rnn", traced(lambda c: Unrolled(c.source.run.model)), "is no constant of the model"),
    "BatchNorm still training (images)": ("tiny-picture", traced(training_mode), "parity: output 'logits'"),
    "BatchNorm still training (GAN)": ("tiny-gan", traced(training_mode), "parity: output 'samples'"),
    "labels permuted": ("tiny-picture", permute_labels, "vocabulary: label 0 of the manifest is 'bee'"),
    "labels of a series model permuted": ("tiny-tagger", permute_labels, "vocabulary: label 0 of the manifest"),
    "another mean in the preprocessing": ("tiny-colour", weight("mean", lambda a: a + 0.01), "parity: output 'logits'"),
    "another deviation in the preprocessing": ("tiny-lstm", weight("std", scaled), "parity: output 'logits'"),
    "softmax over the wrong axis": ("tiny-rnn", edited(normalise_over_batch), "parity: output 'probabilities'"),
    "logits and probabilities swapped": ("tiny-rnn", edited(swap_outputs), "parity: output"),
    "lengths ignored": ("tiny-lstm", edited(ignore_lengths), "parity: output 'logits'"),
    "a padding mask dropped": ("tiny-text", edited(drop_mask("GreaterOrEqual")), "parity: output 'logits'"),
    "the causal mask dropped": ("tiny-prenorm", edited(drop_mask("LessOrEqual")), "parity: output"),
    "the mask of the past dropped": ("tiny-prenorm", traced(lambda c: ReadsGarbage(c.source.run.model)), "chunks"),
    "the past ignored": ("tiny-prenorm", traced(lambda c: IgnoresPast(c.source.run.model)), "chunks"),
    "an off-by-one position": ("tiny-prenorm", traced(lambda c: NextPosition(c.source.run.model)), "parity: output"),
    "initial states swapped": ("tiny-tagger", edited(swap_states), "parity: output 'next_"),
    "a truncated vocabulary": (
        "tiny-text",
        weight("embedding", lambda a: a[:-1]),
        "structure: the service must not load this graph",
    ),
    "a shifted tokenizer": ("tiny-text", shift_tokens, "vocabulary: tokenizer.json differs"),
    "pixels rounded down": ("tiny-gan", edited(round_down), "parity: output 'images'"),
    "a better metric than measured": ("tiny-lstm", inflate_metric, "metric: accuracy of the graph on the test split"),
    "an operator of another domain": (
        "tiny-picture",
        edited(change_domain),
        "structure: the service must not load this graph",
    ),
}


# The gate of weights refuses these constants and nodes before any output is computed. The table has what parity alone
# says of them.
WITHOUT_COUNTERPART = (
    "a weight scaled by 1 %",
    "an attention weight scaled by 1 %",
    "a weight that is not a number",
    "gates permuted",
    "BatchNorm still training (images)",
    "BatchNorm still training (GAN)",
    "another mean in the preprocessing",
    "another deviation in the preprocessing",
    "softmax over the wrong axis",
    "a padding mask dropped",
    "the causal mask dropped",
    "an off-by-one position",
    "pixels rounded down",
)


@pytest.fixture(scope="module")
def corrupted(candidates: Candidates) -> Callable[[str], Candidate]:
    """The corrupt candidate, by the name of the corruption."""

    def corrupt(corruption: str) -> Candidate:
        name, change, _ = CORRUPTIONS[corruption]
        return change(candidates(name))

    return cache(corrupt)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_corrupt_export_is_refused_with_the_difference(
    corruption: str, corrupted: Callable[[str], Candidate]
) -> None:
    expected = "weights: " if corruption in WITHOUT_COUNTERPART else CORRUPTIONS[corruption][2]
    with pytest.raises(ExportError) as refusal:
        prove(corrupted(corruption), lambda stage: None)
    print(refusal.value)
    assert expected in str(refusal.value)


@pytest.mark.parametrize("corruption", WITHOUT_COUNTERPART)
def test_parity_alone_refuses_other_constants_and_nodes(corruption: str, corrupted: Callable[[str], Candidate]) -> None:
    with pytest.raises(ExportError) as refusal:
        check_parity(corrupted(corruption))
    assert CORRUPTIONS[corruption][2] in str(refusal.value)


def test_a_graph_serialised_again_passes(candidates: Candidates) -> None:
    """Loading and serialising a graph alone is no corruption."""
    candidate = candidates("tiny-rnn")
    model = onnx.load_from_string(candidate.model).SerializeToString()
    prove(replace(candidate, model=model), lambda stage: None)
