"""Search for ONNX files that the service accepts and that onnxruntime or the `onnx` package reads in another way.

    python -m benchmarks.proof.wire [--inputs 200000] [--seed 0] [--processes 2]

Each input is a changed graph: tiny ones of all families, one with subgraphs, those of
`ai.onnx.ml`, and those of the bundles. What the service
accepts is read by three readers: `service.onnx_wire`, the `onnx` package, and onnxruntime, which writes the graph that
it loaded to a file. Their views must be equal. onnxruntime runs in a process of its own, in a folder that holds a file
with the name that changed graphs use for external data; a crash of that process counts as a difference.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import parser

from benchmarks.proof.mutations import mutator
from benchmarks.proof.seeds import machine_learning_graphs
from benchmarks.proof.views import View, differences, our_view, proto_view
from service.bundle import current_version
from service.engine.sessions.session import onnx_options
from service.manifest import MODEL
from service.operators import check_operators
from tests.service.bundles import FAMILIES, OPSET, onnx_model

TIMEOUT_S = 20
# Larger graphs are left out: a change seldom meets anything but weights.
MAX_SEED_BYTES = 600_000
SUBGRAPHS = """
(float[batch, 3] x) => (float[batch, 3] y) {
  total = ReduceSum <keepdims = 0> (x)
  positive = Greater (total, zero)
  y = If (positive) <
    then_branch = then () => (float[batch, 3] kept) { kept = Relu (x) },
    else_branch = other () => (float[batch, 3] turned) { two = Constant <value = float[1] {2.0}> ()
      turned = Mul (x, two) }
  >
}"""


def seed_graphs(bundles: Path | None) -> list[bytes]:
    """The graphs to change; those of bundles come last."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {OPSET}]>\nsubgraphs {SUBGRAPHS.strip()}')
    model.graph.initializer.append(onnx.helper.make_tensor("zero", onnx.TensorProto.FLOAT, [], [0.0]))
    graphs = [model.SerializeToString(), *(onnx_model(family).SerializeToString() for family in FAMILIES)]
    graphs += [model.SerializeToString() for model in machine_learning_graphs(OPSET).values()]
    folders = sorted(bundles.iterdir()) if bundles and bundles.is_dir() else []
    graphs += [(folder / current_version(folder) / MODEL).read_bytes() for folder in folders]
    return [content for content in graphs if len(content) < MAX_SEED_BYTES]


def serve_runtime(connection: Connection, folder: str) -> None:
    """The main function of the process of onnxruntime: for each file, send the graph that it loaded, or None."""
    os.chdir(folder)
    Path("w.bin").write_bytes(bytes(range(256)) * 4096)
    while True:
        content = connection.recv_bytes()
        options = onnx_options("cpu", 1)
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.optimized_model_filepath = "loaded.onnx"
        try:
            ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception:  # noqa: BLE001 - onnxruntime raises bare subclasses of Exception
            connection.send_bytes(b"")
        else:
            connection.send_bytes(Path("loaded.onnx").read_bytes())


class Runtime:
    """onnxruntime in a process of its own, which is started again when it dies."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.process: multiprocessing.process.BaseProcess | None = None

    def load(self, content: bytes) -> bytes | None:
        """Return the graph that onnxruntime loaded, b"" if it refuses the file, None if it died or hangs."""
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            self.process = context.Process(target=serve_runtime, args=(theirs, self.folder), daemon=True)
            self.process.start()
            theirs.close()
        try:
            self.connection.send_bytes(content)
            if self.connection.poll(TIMEOUT_S):
                return self.connection.recv_bytes()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass
        self.close()
        return None

    def close(self) -> None:
        if self.process:
            self.process.kill()
            self.process.join()
            self.process = None


def accepted(content: bytes) -> bytes | None:
    """Return the bytes if the service accepts them."""
    try:
        check_operators(content, opset=OPSET, control_flow=True)
    except ValueError:
        return None
    return content


def compare(ours: View, content: bytes, runtime: Runtime) -> tuple[str, list[str]]:
    """Return what onnxruntime did with an accepted file, and the differences between the readers."""
    try:
        problems = [f"onnx: {problem}" for problem in differences(ours, proto_view(content))]
    except Exception as error:  # noqa: BLE001 - protobuf raises exceptions of its own
        problems = [f"onnx: {type(error).__name__}: {error}"]
    loaded = runtime.load(content)
    if loaded is None:
        return "died", [*problems, "onnxruntime died or hangs"]
    if not loaded:
        return "refused", problems
    try:
        problems += [f"onnxruntime: {it}" for it in differences(ours, proto_view(loaded), is_runtime=True)]
    except ValueError as error:
        problems.append(f"onnxruntime: {error}")
    return "loaded", problems


def search(
    seeds: list[bytes], num_inputs: int, seed: int, read: Callable[[bytes], bytes | None] = accepted
) -> tuple[Counter[str], list[tuple[bytes, list[str]]]]:
    """Return counts of inputs, and each accepted file that is read in two ways with its differences.

    `read` returns the part of a file that the checks saw, or None if they refuse the file.
    """
    counts, found, mutate = Counter[str](inputs=0), list[tuple[bytes, list[str]]](), mutator(seeds, seed)
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(folder)
        for _ in range(num_inputs):
            content = mutate()
            counts["inputs"] += 1
            seen = None if content in seeds else read(content)
            if seen is None:
                continue
            counts["accepted"] += 1
            outcome, problems = compare(our_view(seen), content, runtime)
            counts[outcome] += 1
            if problems:
                found.append((content, problems))
        runtime.close()
    return counts, found


def main(arguments: Iterable[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--inputs", type=int, default=200_000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--bundles", type=Path, default=Path("bundles"))
    options.add_argument("--out", type=Path, help="a folder for the files that are read in two ways")
    args = options.parse_args(None if arguments is None else list(arguments))
    began, seeds = time.monotonic(), seed_graphs(args.bundles)
    share = args.inputs // args.processes
    counts, found = Counter[str](), list[tuple[bytes, list[str]]]()
    with ProcessPoolExecutor(args.processes) as pool:
        for part, differing in pool.map(partial(search, seeds, share), range(args.seed, args.seed + args.processes)):
            counts += part
            found += differing
    print(f"{len(seeds)} graphs, {dict(counts)}, {len(found)} read in two ways, {time.monotonic() - began:.0f} s")
    for i, (content, problems) in enumerate(found[:20]):
        print(f"{len(content)} bytes: {'; '.join(problems)[:500]}")
        if args.out:
            args.out.mkdir(exist_ok=True)
            (args.out / f"{i}.onnx").write_bytes(content)
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
