"""The head and the outputs of an adapted model, checked on its own examples before anything is traced."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from export.source import Array
from export.sources.module.adapter import Adapter, run_adapter, to_tensors
from export.sources.payload import Payload
from export.sources.trials import Sizes, trials
from export.spec import (
    EmbeddingPart,
    ImageOutPart,
    LabelsPart,
    MultilabelPart,
    Spec,
    TensorPart,
    TensorsOutPart,
    TokenLabelsPart,
    ValuesPart,
)
from service.contract.heads import (
    EmbeddingHead,
    Head,
    ImageHead,
    LabelsHead,
    MultilabelHead,
    TensorsHead,
    TokenLabelsHead,
    ValuesHead,
)
from service.contract.pairs import pair_error
from service.contract.tensors import Specs, TensorSpec


def declare_outputs(spec: Spec, adapter: Adapter, payload: Payload) -> tuple[Head, Specs]:
    """The head and the outputs in the order of the adapter. Raises ValueError if the model returns something else."""
    part: Any = spec.head
    tried = list(trials(payload))
    if isinstance(part, TensorsOutPart):
        return TensorsHead(), _tensor_outputs(part, adapter, tried)
    answers = [(sizes, _answer(adapter, inputs)) for sizes, inputs in tried]
    head = _head(part, answers[0][1], payload)
    if reason := pair_error(payload.reader, head):
        raise ValueError(f"the spec declares a pair that makes no model: {reason}")
    required = head.outputs(payload.reader)
    extra: Specs = ()
    if "logits" in answers[0][1]:
        extra = (required[0].model_copy(update={"name": "logits"}),)
    outputs = (*extra, *required)
    for sizes, answer in answers:
        _check(outputs, sizes, answer)
    return head, outputs


def _head(part: Any, answer: Mapping[str, Array], payload: Payload) -> Head:
    match part:
        case LabelsPart():
            return LabelsHead(labels=part.labels)
        case MultilabelPart():
            return MultilabelHead(labels=part.labels, threshold=part.threshold)
        case ValuesPart():
            return ValuesHead(names=part.names, units=part.units or ("",) * len(part.names))
        case EmbeddingPart():
            return EmbeddingHead(size=answer["embedding"].shape[-1], normalized=part.normalized)
        case TokenLabelsPart():
            return TokenLabelsHead(labels=part.labels)
    assert isinstance(part, ImageOutPart), "the adapter refuses other heads"
    reader: Any = payload.reader
    height, width = (getattr(part, axis) or getattr(reader, axis, None) for axis in ("height", "width"))
    return ImageHead(height=height, width=width, mode=part.mode)


def _answer(adapter: Adapter, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What the adapted model returns. Raises ValueError with the first line of what somebody's code raises."""
    try:
        return run_adapter(adapter, inputs)
    except ValueError:
        raise
    # A foreign module may raise anything.
    except Exception as error:
        raise ValueError(_failure(inputs, error)) from error


def _failure(inputs: Mapping[str, Array], error: Exception) -> str:
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return f"the model fails on the first examples ({shapes}): {line}"


def _check(outputs: Specs, sizes: Sizes, answer: Mapping[str, Array]) -> None:
    for spec in outputs:
        if spec.name not in answer:
            raise ValueError(f"the model returns {', '.join(answer)}, the head needs {spec.name}")
        array = answer[spec.name]
        expected = [sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape]
        if list(array.shape) != expected:
            raise ValueError(
                f"{spec.name} of the model has the shape {list(array.shape)} for {sizes['batch']} examples, the head "
                f"of the spec makes it {expected}, which is {list(spec.shape)}"
            )
        if str(array.dtype) != spec.dtype:
            raise ValueError(
                f"{spec.name} of the model is {array.dtype}, the head needs {spec.dtype}; "
                "make the module compute in float32, such as by module.float() in the factory"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{spec.name} of the model is not finite for an example")


def _tensor_outputs(part: TensorsOutPart, adapter: Adapter, tried: list[tuple[Sizes, dict[str, Array]]]) -> Specs:
    """Declared outputs, or the model's own, whose free axes are those that vary with an axis of the inputs."""
    try:
        found = adapter.own_outputs(*to_tensors(adapter, tried[0][1]))
    except ValueError:
        raise
    # A foreign module may raise anything.
    except Exception as error:
        raise ValueError(_failure(tried[0][1], error)) from error
    if part.outputs:
        adapter.outputs = tuple(output.name for output in part.outputs)
    elif all(name.replace(".", "").isdigit() for name in found):
        adapter.outputs = ("output",) if len(found) == 1 else tuple(f"output_{i}" for i in range(len(found)))
    else:
        adapter.outputs = tuple(found)
    answers = [(sizes, _answer(adapter, inputs)) for sizes, inputs in tried]
    if not part.outputs:
        return tuple(_seen(name, answers) for name in adapter.outputs)
    outputs = tuple(_declared(output) for output in part.outputs)
    for sizes, answer in answers:
        known = {**_derived(outputs, answer), **sizes}
        _check(outputs, known, answer)
    return outputs


def _declared(output: TensorPart) -> TensorSpec:
    return TensorSpec(name=output.name, dtype=output.dtype, shape=output.shape)


def _derived(outputs: Specs, answer: Mapping[str, Array]) -> Sizes:
    """The sizes of the outputs' own axes, which no input has."""
    sizes: Sizes = {}
    for spec in outputs:
        array = answer[spec.name]
        if array.ndim == len(spec.shape):
            sizes |= {axis: size for axis, size in zip(spec.shape, array.shape, strict=True) if isinstance(axis, str)}
    return sizes


def _seen(name: str, answers: list[tuple[Sizes, dict[str, Array]]]) -> TensorSpec:
    shapes = [answer[name].shape for _, answer in answers]
    if len({len(shape) for shape in shapes}) > 1:
        raise ValueError(f"output {name!r} has {sorted({len(shape) for shape in shapes})} axes, expected one number")
    axes: list[int | str] = []
    for position, dims in enumerate(zip(*shapes, strict=True)):
        if len(set(dims)) == 1:
            axes.append(dims[0])
            continue
        matching = [
            axis
            for axis in answers[0][0]
            if axis not in axes and all(dim == sizes[axis] for dim, (sizes, _) in zip(dims, answers, strict=True))
        ]
        if not matching:
            raise ValueError(
                f"axis {position} of output {name!r} varies ({', '.join(map(str, dict.fromkeys(dims)))}) and is "
                "no axis of the inputs; name it in [[head.outputs]] and bound it in [limits.axes] of the spec"
            )
        axes.append(matching[0])
    return TensorSpec(name=name, dtype=str(answers[0][1][name].dtype), shape=tuple(axes))
