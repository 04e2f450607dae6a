"""What passes by itself is told from what does not."""

import errno
import subprocess
import sys

import pytest

from service.engine.process.shortage import ShortageError, is_out_of_memory, is_shortage
from service.errors import BundleError


@pytest.mark.parametrize(
    "number",
    [
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EAGAIN,
        errno.EINTR,
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
    ],
)
def test_a_lack_of_the_machine_is_a_shortage(number: int) -> None:
    assert is_shortage(OSError(number, "x"))
    assert not is_out_of_memory(OSError(number, "x"))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.ELOOP])
def test_a_file_that_is_not_as_it_should_be_is_a_fault(number: int) -> None:
    assert not is_shortage(OSError(number, "x"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("Failed to allocate memory for requested buffer of size 8589934592"),
        RuntimeError("mmap: Cannot allocate memory"),
        RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=f ; line=1 ; expr=cudaMalloc; "),
        RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=h ; file=f ; line=1"),
        RuntimeError("CUBLAS failure 3: the resource allocation failed ; GPU=0 ; hostname=h ; file=f ; line=1"),
        RuntimeError("CUDNN failure 4004: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0"),
        RuntimeError("CUDNN failure 4003: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ; GPU=0"),
    ],
)
def test_a_refused_allocation_is_a_shortage_of_memory(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert is_shortage(error)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA failure 719: unspecified launch failure ; GPU=0",
        "CUDA failure 209: no kernel image is available for execution on the device ; GPU=0",
        "CUBLAS failure 13: the function failed to launch on the GPU ; GPU=0",
        "CUDNN failure 5003: CUDNN_STATUS_EXECUTION_FAILED_CUDART ; GPU=0",
    ],
)
def test_a_failure_of_the_gpu_is_no_shortage(message: str) -> None:
    assert not is_shortage(RuntimeError(message))


BOUNDED = """
import numpy as np, onnx, onnxruntime as ort
from service.engine.process.shortage import is_out_of_memory
graph = "tiled (float[n] x, int64[1] times) => (float[m] y) { y = Tile(x, times) }"
info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
ort.create_and_register_allocator(info, ort.OrtArenaCfg({"max_mem": 1 << 20, "arena_extend_strategy": 1}))
options = ort.SessionOptions()
options.log_severity_level = 4
options.add_session_config_entry("session.use_env_allocators", "1")
model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 17]> ' + graph).SerializeToString()
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
for times in (1, 1 << 10, 1):
    try:
        session.run(None, {"x": np.zeros(1000, np.float32), "times": np.array([times])})
        print("computed")
    except Exception as error:
        print("out of memory" if is_out_of_memory(error) else error)
"""


def test_a_run_beyond_the_bound_of_an_arena_is_a_shortage_of_memory() -> None:
    """The arena of the CPU is that of a GPU: onnxruntime itself refuses the run, and computes the next one."""
    done = subprocess.run([sys.executable, "-c", BOUNDED], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["computed", "out of memory", "computed"]


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), ShortageError("x")])
def test_other_shortages(error: Exception) -> None:
    assert is_shortage(error)
    assert not is_out_of_memory(error)


def test_the_cause_counts() -> None:
    error = BundleError("m/1: cannot read manifest.json")
    assert not is_shortage(error)
    middle = ValueError("x")
    middle.__cause__ = OSError(errno.EMFILE, "x")
    error.__cause__ = middle
    assert is_shortage(error)
    assert not is_out_of_memory(error)
    middle.__cause__ = MemoryError()
    assert is_out_of_memory(error)


def test_other_errors_are_faults() -> None:
    for error in (ValueError("x"), BundleError("x"), RuntimeError("x"), None):
        assert not is_shortage(error)
        assert not is_out_of_memory(error)
