"""`python -m export.diff RUN BUNDLE`: where a bundle's graph first computes something else than its run.

The run is exported anew with its metadata kept. Both are computed value by value on the bundle's golden inputs: the
graph without any optimisation, and the PyTorch program by torch.fx, or, where it holds operators that only ONNX Runtime
can compute (recurrent layers), the fresh graph. The first value that differs has the error, all later ones inherit it.
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

from export.cases import Array
from export.graph import export_program
from service.bundle import Bundle, Tensors, current_version, open_bundle
from training.checkpoint import Run, load_run

NEAR = 1e-5  # of a value's largest element: what rounding explains
SCOPES, TRACE = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.stack_trace"
CALLERS = ("export/graph.py", "training/families.py")  # of a model: never its own code
FRAME = re.compile(r'File "([^"]+)", line (\d+), in \w+\n\s*(.*)')


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first node that differs."""

    position: int  # in the bundle's graph
    operator: str
    value: str
    worst: float
    module: str  # path of the nn.Module, "" is the model itself
    source: str
    because: str  # what differs between the two graphs at this node


@dataclass(frozen=True, kw_only=True)
class Comparison:
    against: str
    num_compared: int
    first: Divergence | None


def diff(run: Run, bundle: Bundle) -> Comparison:
    """Compare the graph of the bundle with the model of the run."""
    torch.set_num_threads(1)
    program = export_program(run)
    fresh, stored = program.model_proto, onnx.load_from_string(bundle.model)
    assert program.exported_program is not None
    symbolic = any("symbolic" in str(node.target) for node in program.exported_program.graph.nodes)
    sizes: dict[str, tuple[float, float]] = {}
    for case in bundle.golden:
        reference = _by_onnx(fresh, case.inputs) if symbolic else _by_torch(program, case.inputs)
        for name, value in _by_onnx(stored, case.inputs).items():
            if name in reference:
                sizes[name] = max(sizes.get(name, (0.0, 0.0)), _distance(reference[name], value))
    against = "a fresh export" if symbolic else "PyTorch, node by node"
    for position, node in enumerate(stored.graph.node):
        for name in node.output:
            distance, worst = sizes.get(name, (0.0, 0.0))
            if distance > NEAR:
                props, because = _origin(node, name, fresh, stored, seen=sizes)
                module = _module(props)
                first = Divergence(
                    position=position,
                    operator=node.op_type,
                    value=name,
                    worst=worst,
                    module=module,
                    source=_source(props.get(TRACE, ""), module, run.recipe.build),
                    because=because,
                )
                return Comparison(against=against, num_compared=len(sizes), first=first)
    return Comparison(against=against, num_compared=len(sizes), first=None)


def _by_onnx(model: onnx.ModelProto, inputs: Tensors) -> dict[str, Array]:
    """Every value of the graph."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    shown = {output.name for output in exposed.graph.output}
    for node in exposed.graph.node:
        names = [name for name in node.output if name and name not in shown]
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _by_torch(program: torch.onnx.ONNXProgram, inputs: Tensors) -> dict[str, Array]:
    """Every value of the traced program; they are named as in the graph, its outputs aside."""
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


def _distance(reference: Array, value: Array) -> tuple[float, float]:
    """Largest difference, relative to the largest element and absolute; infinite where the shapes differ."""
    if reference.shape != value.shape:
        return np.inf, np.inf
    if not value.size:
        return 0.0, 0.0
    exact, given = reference.astype(np.float64), value.astype(np.float64)
    differs = exact != given  # scores that a mask hides are -inf on both sides
    finite = np.isfinite(exact) & np.isfinite(given)
    if (differs & ~finite).any():
        return np.inf, np.inf
    worst = float(np.abs(given[finite] - exact[finite]).max(initial=0.0))
    return worst / max(1.0, float(np.abs(exact[finite]).max(initial=0.0))), worst


def _module(props: Mapping[str, str]) -> str:
    """The innermost module: ['', 'model', 'model.head', 'linear'] names the modules, then the operator."""
    scopes = ast.literal_eval(props.get(SCOPES, "['', '']"))
    return str(scopes[-2] if len(scopes) > 1 else "").removeprefix("model.")


def _source(trace: str, module: str, build: Callable[..., torch.nn.Module]) -> str:
    """The innermost line of the model's own code, else of ours; where no line calls the module, its builder."""
    root = Path(__file__).parent.parent
    frames = [(Path(path), line, code) for path, line, code in FRAME.findall(trace)]
    ours = [frame for frame in frames if frame[0].is_relative_to(root) and "site-packages" not in frame[0].parts]
    called = [frame for frame in ours if frame[0].relative_to(root).as_posix() not in CALLERS]
    trained = [frame for frame in called if "export" not in frame[0].relative_to(root).parts[:1]]
    if not ours:
        return "unknown"
    if module and not called:  # the layers of nn.Sequential
        made = getattr(build, "func", build)  # of functools.partial
        lines, number = inspect.getsourcelines(made)
        return f"{Path(inspect.getfile(made)).relative_to(root)}:{number}: {lines[0].strip()}"
    path, line, code = (trained or called or ours)[-1]
    return f"{path.relative_to(root)}:{line}: {code.strip()}"


def _origin(
    node: onnx.NodeProto, value: str, fresh: onnx.ModelProto, stored: onnx.ModelProto, *, seen: Container[str]
) -> tuple[dict[str, str], str]:
    """The metadata of the run's own node for this value, and what differs between the two nodes."""
    origin = next((other for other in fresh.graph.node if value in other.output), None)
    if origin is None:
        return {}, "the run's graph has no such value"
    props = {entry.key: entry.value for entry in origin.metadata_props}
    if node.op_type != origin.op_type or list(node.attribute) != list(origin.attribute):
        return props, f"the run has {origin.op_type}({_attributes(origin)}), the bundle {_attributes(node) or 'none'}"
    ours, theirs = (_constants(model, value, seen) for model in (stored, fresh))
    for name in ours.keys() & theirs.keys():
        _, worst = _distance(theirs[name], ours[name])
        if worst:
            return props, f"constant {name!r} differs by up to {worst:.3g}"
    return props, "its constants are the run's: its inputs are connected otherwise"


def _constants(model: onnx.ModelProto, value: str, seen: Container[str]) -> dict[str, Array]:
    """The constants that a value is made of, directly or through values that were not compared."""
    producers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found, waiting = dict[str, Array](), [*producers[value].input]
    while waiting:
        name = waiting.pop()
        if name in constants:
            found[name] = numpy_helper.to_array(constants[name])
        elif name in producers and name not in seen:
            waiting.extend(producers[name].input)
    return found


def _attributes(node: onnx.NodeProto) -> str:
    shown = (f"{item.name}={onnx.helper.get_attribute_value(item)}" for item in node.attribute)
    return ", ".join(shown)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 nothing differs, 1 something does, 2 wrong usage."""
    arguments = argparse.ArgumentParser(
        prog="python -m export.diff", description="Find the first node at which a bundle's graph leaves its run."
    )
    arguments.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as runs/mnist-cnn")
    arguments.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundles/NAME or bundles/NAME/VERSION")
    options = arguments.parse_args(argv)
    home: Path = options.bundle
    try:
        run = load_run(options.run)
        bundle = open_bundle(home / current_version(home) if (home / "current").exists() else home)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    comparison = diff(run, bundle)
    print(describe(bundle, comparison))
    return 0 if comparison.first is None else 1


def describe(bundle: Bundle, comparison: Comparison) -> str:
    """What `main` prints."""
    where = f"{bundle.manifest.name}/{bundle.manifest.version}"
    compared = f"{comparison.num_compared} values on {len(bundle.golden)} golden cases against {comparison.against}"
    first = comparison.first
    if first is None:
        return f"{where}: nothing diverges ({compared})"
    return (
        f"{where}: diverges first at node {first.position}, {first.operator} {first.value!r}, "
        f"by {first.worst:.3g} ({compared})\n"
        f"  module   {first.module or '(the model itself)'}\n"
        f"  source   {first.source}\n"
        f"  because  {first.because}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
