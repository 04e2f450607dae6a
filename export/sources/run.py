"""A finished training run as a source."""

from collections.abc import Mapping

import onnx
import onnxruntime
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from export.errors import ExportError
from export.graph.cached_decoder import CachedDecoder
from export.graph.recurrent import OPSET
from export.source import Array, Predict, Source
from export.sources.float64 import float64_twin
from export.sources.interface import read_interface
from service.bundle import first_validation_error
from service.manifest import Provenance, RequestLimits
from training.checkpoint import Run
from training.families import FAMILIES, Family


class PositionalModel(nn.Module):
    """A family's reference as a module with positional tensors as inputs and outputs."""

    def __init__(self, family: Family, model: nn.Module) -> None:
        super().__init__()
        self.family, self.model = family, model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.family.forward(self.model, dict(zip(self.family.inputs, inputs, strict=True)))
        return tuple(outputs[name] for name in self.family.outputs)


class Served(nn.Module):
    """The generator of a pair of networks, under its name."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator


def run_source(run: Run) -> Source:
    """The source of a run. Its contract, reference, examples and provenance are those of the run.

    Raises ExportError if the checkpoint's values make no valid provenance.
    """
    interface, recipe = read_interface(run), run.recipe
    is_language_model = recipe.family == "language-model"
    module = CachedDecoder(run.model) if is_language_model else PositionalModel(FAMILIES[recipe.family], _exported(run))
    return Source(
        name=run.folder.resolve().name,
        summary=recipe.summary,
        reader=interface.reader,
        head=interface.head,
        inputs=interface.inputs,
        outputs=interface.outputs,
        limits=RequestLimits(max_items=recipe.max_items, max_steps=recipe.max_steps),
        examples=run.test,
        predict=family_predict(run, run.model),
        predict_float64=family_predict(run, float64_twin(run.model)),
        module=module,
        provenance=_provenance(run),
        note=run.checkpoint.data["note"],
        atol=recipe.tolerance.atol,
        rtol=recipe.tolerance.rtol,
        invariance=recipe.invariance,
        control_flow=recipe.control_flow,
        tokenizer=run.tokenizer,
        tokens=run.tokens,
        run=run,
    )


def _provenance(run: Run) -> Provenance:
    checkpoint = run.checkpoint
    try:
        return Provenance(
            recipe=run.recipe.name,
            commit=checkpoint.commit,
            seed=checkpoint.seed,
            steps=checkpoint.steps,
            dataset=checkpoint.data["name"],
            data=checkpoint.data["sha256"],
            metrics=checkpoint.metrics,
            versions=checkpoint.versions | exporter_versions(),
            opset=OPSET,
        )
    except ValidationError as error:
        raise ExportError("manifest", first_validation_error(error)) from error


def _exported(run: Run) -> nn.Module:
    """The part of the model that is served: an image generator leaves its discriminator behind."""
    generator = getattr(run.model, "generator", None)
    return run.model if generator is None else Served(generator)


def exporter_versions() -> dict[str, str]:
    """The versions of the packages that make and check the graph."""
    return {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}


def family_predict(run: Run, model: nn.Module) -> Predict:
    """The reference of the run's family with this model."""
    family = FAMILIES[run.recipe.family]

    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        tensors = {name: torch.from_numpy(inputs[name]) for name in family.inputs if name in inputs}
        return {name: tensor.numpy() for name, tensor in family.predict(model, tensors).items()}

    return predict
