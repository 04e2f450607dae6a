"""`python -m export.diff RUN BUNDLE`: find the first node at which a bundle's graph and its run diverge.

The run is exported again, with its metadata kept. Two programs then compute every intermediate value on the bundle's
first golden inputs: ONNX Runtime runs the stored graph without optimisations, and torch.fx interprets the PyTorch
program.
Recurrent operators have no PyTorch implementation in the traced program, so a graph that holds them is compared with
the fresh export instead. The first value that differs contains the error; all later values inherit it.
"""

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

from export.gates.cases import Array
from export.graph.exporter import export_program
from export.sources.registry import WAYS
from export.sources.run import run_source
from service.bundle import Bundle, Tensors, open_bundle, version_folder
from service.engine.sessions.session import Session
from service.engine.verification.golden_inputs import complete_inputs
from training.checkpoint import Run, load_run

# The first golden cases have batches, long items and, for a language model, all capacities of its cache.
MAX_CASES = 6
# Rounding explains differences up to this share of a value's largest element.
ROUNDING = 1e-5
SCOPES_KEY, TRACE_KEY = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.stack_trace"
# These files call the model; a stack frame in them is never the model's own code.
CALLERS = ("export/graph/exporter.py", "export/sources/run.py", "training/families.py")
FRAME = re.compile(r'File "([^"]+)", line (\d+), in \w+\n\s*(.*)')


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first node that differs.

    `position` is its index in the bundle's graph, `module` the path of its nn.Module ("" is the model itself), and
    `reason` says how the node differs from the run's own node.
    """

    position: int
    operator: str
    value: str
    difference: float
    module: str
    source: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`reference` names what the graph was compared with; `first` is None if nothing diverges."""

    reference: str
    num_compared: int
    first: Divergence | None


def diff(run: Run, bundle: Bundle) -> Comparison:
    """Compare the graph of the bundle with the model of the run."""
    torch.set_num_threads(1)
    program = export_program(run_source(run))
    fresh, stored = program.model_proto, onnx.load_from_string(bundle.model)
    assert program.exported_program is not None
    is_symbolic = any("symbolic" in str(node.target) for node in program.exported_program.graph.nodes)
    # The relative and the absolute difference of each value.
    differences: dict[str, tuple[float, float]] = {}
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
    for case in bundle.golden[:MAX_CASES]:
        inputs = complete_inputs(session, case.inputs)
        expected = _onnx_values(fresh, inputs) if is_symbolic else _torch_values(program, inputs)
        for name, value in _onnx_values(stored, inputs).items():
            if name in expected:
                differences[name] = max(differences.get(name, (0.0, 0.0)), _difference(expected[name], value))
    reference = "a fresh export" if is_symbolic else "PyTorch, node by node"
    for position, node in enumerate(stored.graph.node):
        for name in node.output:
            relative, absolute = differences.get(name, (0.0, 0.0))
            if relative > ROUNDING:
                metadata, reason = _origin(node, name, fresh, stored, compared=differences)
                module = _module(metadata)
                first = Divergence(
                    position=position,
                    operator=node.op_type,
                    value=name,
                    difference=absolute,
                    module=module,
                    source=_source(metadata.get(TRACE_KEY, ""), module, run.recipe.build),
                    reason=reason,
                )
                return Comparison(reference=reference, num_compared=len(differences), first=first)
    return Comparison(reference=reference, num_compared=len(differences), first=None)


def _onnx_values(model: onnx.ModelProto, inputs: Tensors) -> dict[str, Array]:
    """Every value of the graph, computed by ONNX Runtime."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    outputs = {output.name for output in exposed.graph.output}
    for node in exposed.graph.node:
        names = [name for name in node.output if name and name not in outputs]
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _torch_values(program: torch.onnx.ONNXProgram, inputs: Tensors) -> dict[str, Array]:
    """Every value of the traced program. Except for the outputs, values have the same names as in the graph."""
    values: dict[str, Array] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                values[n.name] = value.detach().numpy()
            return value

    exported = program.exported_program
    assert exported is not None
    tensors = tuple(torch.from_numpy(inputs[entry.name]) for entry in program.model_proto.graph.input)
    with torch.no_grad():
        outputs = Recorder(exported.graph_module).run(*exported._graph_module_flat_inputs(tensors, {}))
    names = [output.name for output in program.model_proto.graph.output]
    return values | dict(zip(names, (output.numpy() for output in outputs), strict=True))


def _difference(expected: Array, actual: Array) -> tuple[float, float]:
    """The largest difference, relative to the largest element and absolute; infinite if the shapes differ."""
    if expected.shape != actual.shape:
        return np.inf, np.inf
    if not actual.size:
        return 0.0, 0.0
    expected, actual = expected.astype(np.float64), actual.astype(np.float64)
    # Masked attention scores are -inf on both sides and count as equal.
    differs = expected != actual
    finite = np.isfinite(expected) & np.isfinite(actual)
    if (differs & ~finite).any():
        return np.inf, np.inf
    largest = float(np.abs(actual[finite] - expected[finite]).max(initial=0.0))
    return largest / max(1.0, float(np.abs(expected[finite]).max(initial=0.0))), largest


def _module(metadata: Mapping[str, str]) -> str:
    """The innermost module: ['', 'model', 'model.head', 'linear'] names the modules, then the operator."""
    scopes = ast.literal_eval(metadata.get(SCOPES_KEY, "['', '']"))
    return str(scopes[-2] if len(scopes) > 1 else "").removeprefix("model.")


def _source(trace: str, module: str, build: Callable[..., torch.nn.Module]) -> str:
    """The source line of a node: the innermost line of the model's code, else of other code in this repository.

    The layers of an nn.Sequential have no line of their own; for them it is the line that defines the model's builder.
    """
    root = Path(__file__).parent.parent
    frames = [(Path(path), line, code) for path, line, code in FRAME.findall(trace)]
    local = [frame for frame in frames if frame[0].is_relative_to(root) and "site-packages" not in frame[0].parts]
    called = [frame for frame in local if frame[0].relative_to(root).as_posix() not in CALLERS]
    trained = [frame for frame in called if "export" not in frame[0].relative_to(root).parts[:1]]
    if not local:
        return "unknown"
    if module and not called:
        # The builder of a recipe may be a functools.partial.
        builder = getattr(build, "func", build)
        lines, number = inspect.getsourcelines(builder)
        return f"{Path(inspect.getfile(builder)).relative_to(root)}:{number}: {lines[0].strip()}"
    path, line, code = (trained or called or local)[-1]
    return f"{path.relative_to(root)}:{line}: {code.strip()}"


def _origin(
    node: onnx.NodeProto, value: str, fresh: onnx.ModelProto, stored: onnx.ModelProto, *, compared: Container[str]
) -> tuple[dict[str, str], str]:
    """The metadata of the run's own node for this value, and how the two nodes differ."""
    origin = next((other for other in fresh.graph.node if value in other.output), None)
    if origin is None:
        return {}, "the run's graph has no such value"
    metadata = {entry.key: entry.value for entry in origin.metadata_props}
    if node.op_type != origin.op_type or list(node.attribute) != list(origin.attribute):
        return metadata, (
            f"the run has {origin.op_type}({_attributes(origin)}), the bundle {_attributes(node) or 'none'}"
        )
    stored_constants, fresh_constants = (_constants(model, value, compared) for model in (stored, fresh))
    for name in stored_constants.keys() & fresh_constants.keys():
        _, largest = _difference(fresh_constants[name], stored_constants[name])
        if largest:
            return metadata, f"constant {name!r} differs by up to {largest:.3g}"
    return metadata, "its constants equal the run's, so its inputs are connected differently"


def _constants(model: onnx.ModelProto, value: str, compared: Container[str]) -> dict[str, Array]:
    """The constants that feed a value, directly or through values that were not compared."""
    producers = {name: node for node in model.graph.node for name in node.output}
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    constants, pending = dict[str, Array](), [*producers[value].input]
    while pending:
        name = pending.pop()
        if name in initializers:
            constants[name] = numpy_helper.to_array(initializers[name])
        elif name in producers and name not in compared:
            pending.extend(producers[name].input)
    return constants


def _attributes(node: onnx.NodeProto) -> str:
    return ", ".join(f"{item.name}={onnx.helper.get_attribute_value(item)}" for item in node.attribute)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 nothing differs, 1 something differs, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m export.diff", description="Find the first node at which a bundle's graph and its run diverge."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as runs/mnist-cnn")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundles/NAME or bundles/NAME/VERSION")
    options = parser.parse_args(argv)
    folder: Path = options.bundle
    try:
        bundle = open_bundle(version_folder(folder))
        if (recipe := bundle.manifest.provenance.recipe) in WAYS:
            raise ValueError(
                f"{folder} came in by `python -m export {recipe}`; export.diff compares bundles of runs, and "
                "export.mutate takes those from elsewhere"
            )
        run = load_run(options.run)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    comparison = diff(run, bundle)
    print(format_comparison(bundle, comparison))
    return 0 if comparison.first is None else 1


def format_comparison(bundle: Bundle, comparison: Comparison) -> str:
    """The report that `main` prints."""
    name = f"{bundle.manifest.name}/{bundle.manifest.version}"
    num_cases = min(len(bundle.golden), MAX_CASES)
    compared = f"{comparison.num_compared} values on {num_cases} golden cases against {comparison.reference}"
    first = comparison.first
    if first is None:
        return f"{name}: nothing diverges ({compared})"
    return (
        f"{name}: diverges first at node {first.position}, {first.operator} {first.value!r}, "
        f"by {first.difference:.3g} ({compared})\n"
        f"  module   {first.module or '(the model itself)'}\n"
        f"  source   {first.source}\n"
        f"  because  {first.reason}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
