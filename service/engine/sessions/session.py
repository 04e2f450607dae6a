"""One ONNX Runtime session: a bundle's graph on one device.

A session is what its manifest says (inputs, outputs, types, axes, strategy of invariance) and runs where it says it
runs: on "cuda" every node is on the GPU, shape arithmetic aside, or there is no session.
"""

import time
from collections.abc import Sequence
from threading import get_ident
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.bundle import Manifest, Tensors, TensorSpec
from service.engine.sessions.canonical_shapes import Compute, canonical
from service.engine.sessions.device import PROVIDERS, Device, require
from service.errors import BundleError, DeviceError

# Shape arithmetic, which onnxruntime keeps on the CPU because it decides the sizes of tensors on the GPU.
ON_CPU = frozenset(
    {"Shape", "Size", "Constant", "ConstantOfShape", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Reshape"}
    | {"Expand", "Range", "Cast", "Where", "Equal", "Add", "Sub", "Mul", "Div", "Min", "Max"}
)
DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}


class Session:
    """Safe to share between threads: `run` keeps nothing, and releases the interpreter lock while it computes."""

    def __init__(self, model: bytes, *, manifest: Manifest, device: Device, threads: int = 1) -> None:
        self.manifest = manifest
        self.device: Device = device
        self._where = f"{manifest.name}/{manifest.version}"
        require(device)
        try:
            self._session = ort.InferenceSession(model, _options(device, threads), providers=PROVIDERS[device])
        except Exception as error:  # onnxruntime raises bare subclasses of Exception
            raise BundleError(f"{self._where}: onnxruntime refuses the graph: {_first_line(error)}") from error
        self.provider: str = self._session.get_providers()[0]
        self._check_placement()
        self._check_specs("inputs", manifest.inputs, self._session.get_inputs())
        self._check_specs("outputs", manifest.outputs, self._session.get_outputs())
        self._since: dict[int, float] = {}  # thread -> when the run began that it is in
        self._outputs = tuple(output.name for output in manifest.outputs)
        invariance = manifest.invariance
        self.length_buckets = invariance.bounds if invariance.strategy == "length-buckets" else None
        self.compute = canonical(manifest, _computing(self._session))  # `run` without its care

    def run(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Compute the named outputs (all of them by default).

        Raises ValueError that names the input if one does not fit, RuntimeError if the graph fails on inputs that fit.
        """
        names = self._outputs if outputs is None else outputs
        thread = get_ident()
        self._since[thread] = time.monotonic()
        try:
            return self.compute(inputs, names)
        except Exception as error:
            self._check_inputs(inputs, error)
            raise RuntimeError(f"{self._where}: the graph failed: {_first_line(error)}") from error
        finally:
            del self._since[thread]

    def busy_s(self) -> float:
        """How long the longest of the runs that are under way has taken by now; 0 if there is none."""
        now = time.monotonic()
        return now - min(list(self._since.values()), default=now)

    def _check_inputs(self, inputs: Tensors, cause: Exception) -> None:
        specs = {spec.name: spec for spec in self.manifest.inputs}
        if set(inputs) != set(specs):
            raise ValueError(f"{self._where}: inputs {sorted(inputs)}, expected {sorted(specs)}") from cause
        for name, spec in specs.items():
            if not _fits(inputs[name], spec):
                expected = f"{spec.dtype} {_axes(spec.shape)}"
                came = f"{inputs[name].dtype} {_axes(inputs[name].shape)}"
                raise ValueError(f"{self._where}: input {name!r} is {came}, expected {expected}") from cause

    def _check_specs(self, side: str, expected: tuple[TensorSpec, ...], found: Sequence[Any]) -> None:
        graph = {arg.name: f"{DTYPES.get(arg.type, arg.type)} {_axes(arg.shape)}" for arg in found}
        declared = {spec.name: f"{spec.dtype} {_axes(spec.shape)}" for spec in expected}
        if graph != declared:
            name = next(name for name in graph | declared if graph.get(name) != declared.get(name))
            raise BundleError(
                f"{self._where}: {side} {name!r}: the graph has {graph.get(name, 'none')}, "
                f"the manifest says {declared.get(name, 'none')}"
            )

    def _check_placement(self) -> None:
        wanted = PROVIDERS[self.device][0][0]
        if self.provider != wanted:
            raise DeviceError(f"{self._where}: device {self.device!r} was asked for, the session got {self.provider}")
        if self.device == "cpu":
            return
        strayed = {
            f"{node.op_type} {node.name!r}"
            for part in self._session.get_provider_graph_assignment_info()
            if part.ep_name != wanted
            for node in part.get_nodes()
            if node.op_type not in ON_CPU
        }
        if strayed:
            raise DeviceError(f"{self._where}: these nodes would run on the CPU, not on {wanted}: {sorted(strayed)}")


def _computing(session: ort.InferenceSession) -> Compute:
    """Holds no reference to our Session, which has to go as soon as nobody holds it."""
    run = session._sess.run  # beneath onnxruntime's Python, whose checks are ours to make and cost 2.5 us a run

    def compute(inputs: Tensors, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        return dict(zip(names, run(names, inputs, None), strict=True))

    return compute


def _options(device: Device, threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # its errors reach us as exceptions
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device == "cuda":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _fits(value: Any, spec: TensorSpec) -> bool:
    if not isinstance(value, np.ndarray) or value.dtype != spec.dtype or value.ndim != len(spec.shape):
        return False
    return all(isinstance(axis, str) or axis == size for axis, size in zip(spec.shape, value.shape, strict=True))


def _axes(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join(str(axis) for axis in shape)}]"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
