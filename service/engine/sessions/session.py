"""One ONNX Runtime session: a bundle's graph on one device.

Invariant: the graph has exactly the inputs, outputs, types and axes that its manifest declares, and so has what it
computes; batches run under its shape strategy. On "cuda" every node but shape arithmetic runs on the GPU, and no
product is computed in TF32 unless the manifest allows it; otherwise the constructor raises.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from threading import get_ident
from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from service.bundle import Tensors
from service.contract.tensors import NUMPY_DTYPES, TensorSpec, from_rows, has_rows_first, to_rows
from service.data_files.data_file import DataFile
from service.engine.sessions.canonical_shapes import Compute, padded_rows, with_shape_strategy
from service.engine.sessions.device import PROVIDERS, Device, is_tf32_forbidden, require_provider
from service.engine.sessions.device_array import DeviceView
from service.engine.sessions.output_shapes import OutputShapes
from service.engine.sessions.weights import share_weights
from service.errors import BundleError, DeviceError
from service.manifest import Manifest

log = logging.getLogger(__name__)

# Shape arithmetic, which onnxruntime keeps on the CPU because it decides the sizes of tensors on the GPU.
CPU_OPERATORS = frozenset(
    {"Shape", "Size", "Constant", "ConstantOfShape", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Reshape"}
    | {"Expand", "Range", "Cast", "Where", "Equal", "Add", "Sub", "Mul", "Div", "Min", "Max"}
)
# The largest constant that onnxruntime computes while it loads a graph.
MAX_FOLDED_BYTES = 1 << 28
# It changes the layout of float32 convolutions, and crashes onnxruntime 1.31 on some recurrent graphs in float16.
DISABLED_IN_HALF = ("NchwcTransformer",)
DTYPES = {f"tensor({name})": name for name in NUMPY_DTYPES}
DTYPES |= {"tensor(float)": "float32", "tensor(double)": "float64"}


class Session:
    """Thread-safe; a run releases the interpreter lock. `compute` is `run` without checks and without counting.

    Both take and give tensors with the batch axis first, wherever the graph has it.
    """

    def __init__(
        self,
        model: bytes,
        *,
        manifest: Manifest,
        device: Device,
        threads: int = 1,
        data: DataFile | None = None,
        prepack: bool = False,
        keep_memory: bool = True,
        max_gpu_bytes: int | None = None,
    ) -> None:
        """`data` holds the weights that are not in `model`; only `prepack` lets this session make copies of them.

        With `keep_memory`, the memory of activations is kept for the next run, which is quicker. `max_gpu_bytes` bounds
        weights, activations and workspaces on a GPU together: a run that needs more fails.
        """
        self.manifest = manifest
        self.device: Device = device
        self._where = f"{manifest.name}/{manifest.version}"
        require_provider(device, allow_tf32=manifest.allows_tf32)
        if device == "cuda":
            self._check_tf32()
        options = onnx_options(device, threads, os.devnull if data is None else str(data.path.parent))
        options.enable_cpu_mem_arena = keep_memory
        try:
            weights = () if data is None else share_weights(options, model, data, device=device, prepack=prepack)
            self._session = ort.InferenceSession(
                model,
                options,
                providers=_providers(device, manifest, max_gpu_bytes),
                disabled_optimizers=_disabled_optimizers(manifest),
            )
            if data is not None:
                data.check_unchanged()
        except Exception as error:  # onnxruntime raises bare subclasses of Exception
            raise BundleError(f"{self._where}: onnxruntime refuses the graph: {_first_line(error)}") from error
        self.provider: str = self._session.get_providers()[0]
        self._check_placement()
        self._check_specs("inputs", manifest.inputs, self._session.get_inputs())
        self._check_specs("outputs", manifest.outputs, self._session.get_outputs())
        self._started_at: dict[int, float] = {}  # by thread, for the run in progress
        self._outputs = tuple(output.name for output in manifest.outputs)
        invariance = manifest.invariance
        self.length_buckets = invariance.bounds if invariance.strategy == "length-buckets" else None
        self.compute = with_shape_strategy(manifest, _graph_function(self._session, manifest, weights))

    def run(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Compute outputs, by default all; raises ValueError for invalid inputs, RuntimeError if the graph fails."""
        names = self._outputs if outputs is None else outputs
        thread = get_ident()
        self._started_at[thread] = time.monotonic()
        try:
            return self.compute(inputs, names)
        except Exception as error:
            self._check_inputs(inputs, error)
            raise RuntimeError(f"{self._where}: the graph failed: {_first_line(error)}") from error
        finally:
            del self._started_at[thread]

    def run_on_device(
        self, inputs: Mapping[str, npt.NDArray[Any] | DeviceView], outputs: Mapping[str, DeviceView], name: str
    ) -> npt.NDArray[Any]:
        """Compute into memory of the device, and return one output more on the host. The batch axis must be first.

        The shape strategy does not apply: the inputs have `padded_rows`. Raises RuntimeError if the graph fails.
        """
        binding = self._session.io_binding()
        for key, value in inputs.items():
            if isinstance(value, DeviceView):
                value.bind_to(binding.bind_input, key)
            else:
                binding.bind_cpu_input(key, value)
        binding.bind_output(name, "cpu")
        for key, place in outputs.items():
            place.bind_to(binding.bind_output, key)
        thread = get_ident()
        self._started_at[thread] = time.monotonic()
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise RuntimeError(f"{self._where}: the graph failed: {_first_line(error)}") from error
        finally:
            del self._started_at[thread]
        result: npt.NDArray[Any] = binding.get_outputs()[0].numpy()
        return result

    def padded_rows(self, num_rows: int) -> int:
        """Return the number of rows at which the shape strategy computes this many rows of one length."""
        return padded_rows(self.manifest.invariance, num_rows)

    def longest_run_s(self) -> float:
        """Return the age of the oldest run in progress, or 0 if the session is idle."""
        now = time.monotonic()
        return now - min(list(self._started_at.values()), default=now)

    def _check_inputs(self, inputs: Tensors, cause: Exception) -> None:
        specs = {spec.name: spec for spec in self.manifest.inputs}
        if set(inputs) != set(specs):
            raise ValueError(f"{self._where}: inputs {sorted(inputs)}, expected {sorted(specs)}") from cause
        for name, spec in specs.items():
            dtype, shape, axes = inputs[name].dtype, inputs[name].shape, ("batch", *spec.row_shape)
            sizes = [size for axis, size in zip(axes, shape, strict=False) if not isinstance(axis, str)]
            fixed_sizes = [axis for axis in axes if not isinstance(axis, str)]
            if dtype != spec.numpy_dtype or len(shape) != len(axes) or sizes != fixed_sizes:
                actual, expected = _tensor_type(dtype, shape), _tensor_type(spec.dtype, axes)
                raise ValueError(f"{self._where}: input {name!r} is {actual}, expected {expected}") from cause

    def _check_specs(self, side: str, expected: tuple[TensorSpec, ...], actual: Sequence[Any]) -> None:
        graph = {arg.name: _tensor_type(DTYPES.get(arg.type, arg.type), arg.shape) for arg in actual}
        declared = {spec.name: _tensor_type(spec.dtype, spec.shape) for spec in expected}
        if graph != declared:
            name = next(name for name in graph | declared if graph.get(name) != declared.get(name))
            raise BundleError(
                f"{self._where}: {side} {name!r}: the graph has {graph.get(name, 'none')}, "
                f"but the manifest says {declared.get(name, 'none')}"
            )

    def _check_tf32(self) -> None:
        """Raise DeviceError if onnxruntime might use TF32 against the manifest, and say if it uses none against it."""
        if not self.manifest.allows_tf32 and not is_tf32_forbidden():
            raise DeviceError(
                f"{self._where}: it does not allow TF32, which this process may use because every bundle that it "
                "started with allows it: start it again"
            )
        if self.manifest.allows_tf32 and is_tf32_forbidden():
            log.warning(
                "%s allows TF32, but computes in float32, because other bundles of this process do not allow it: "
                "serve variants in tf32 from a folder of their own",
                self._where,
            )

    def _check_placement(self) -> None:
        required, actual = PROVIDERS[self.device][0][0], self.provider
        if actual != required:
            raise DeviceError(f"{self._where}: device {self.device!r} was requested, but the session got {actual}")
        if self.device == "cpu":
            return
        parts = self._session.get_provider_graph_assignment_info()
        on_cpu = [node for part in parts if part.ep_name != required for node in part.get_nodes()]
        misplaced = {f"{node.op_type} {node.name!r}" for node in on_cpu if node.op_type not in CPU_OPERATORS}
        if misplaced:
            message = f"these nodes would run on the CPU, not on {required}: {sorted(misplaced)}"
            raise DeviceError(f"{self._where}: {message}")


def _graph_function(session: ort.InferenceSession, manifest: Manifest, weights: Sequence[ort.OrtValue]) -> Compute:
    """Return a function that runs the graph; a reference to `Session` would be a cycle and delay its release."""
    # The C++ object underneath skips onnxruntime's Python checks, which repeat ours and cost 2.5 us per run.
    run = session._sess.run

    check_shapes = OutputShapes(manifest.inputs, manifest.outputs).check

    # The session refers to the memory of the weights without owning it, so this function keeps them.
    def compute(
        inputs: Tensors, names: Sequence[str], _weights: Sequence[ort.OrtValue] = weights
    ) -> dict[str, npt.NDArray[Any]]:
        outputs = dict(zip(names, run(names, inputs, None), strict=True))
        check_shapes(inputs, outputs)
        return outputs

    if has_rows_first((*manifest.inputs, *manifest.outputs)):
        return compute
    taken, given = ({spec.name: spec for spec in specs} for specs in (manifest.inputs, manifest.outputs))

    def compute_moved(inputs: Tensors, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        outputs = compute({name: from_rows(value, taken[name]) for name, value in inputs.items()}, names)
        return {name: to_rows(value, given[name]) for name, value in outputs.items()}

    return compute_moved


def onnx_options(device: Device, threads: int, data_folder: str = os.devnull) -> ort.SessionOptions:
    """Return the options of a session; no file lies below the default folder of data files."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Errors arrive as exceptions.
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Otherwise bytes that are also a FlatBuffer are loaded in onnxruntime's own format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", data_folder)
    options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(MAX_FOLDED_BYTES))
    if device == "cuda":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _providers(device: Device, manifest: Manifest, max_gpu_bytes: int | None) -> list[tuple[str, dict[str, str]]]:
    (name, options), *others = PROVIDERS[device]
    if device == "cuda" and manifest.allows_tf32:
        options = {**options, "use_tf32": "1"}
    if max_gpu_bytes is not None:
        options = {**options, "gpu_mem_limit": str(max_gpu_bytes)}
    return [(name, options), *others]


def _disabled_optimizers(manifest: Manifest) -> Sequence[str]:
    is_half = manifest.precision is not None and manifest.precision.kind == "fp16"
    return DISABLED_IN_HALF if is_half else ()


def _tensor_type(dtype: object, shape: Sequence[int | str | None]) -> str:
    return f"{dtype} [{', '.join(map(str, shape))}]"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
