"""The CUDA runtime is asked for the memory, with a runtime of a few lines that a compiler makes here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.engine.gpu import memory
from service.engine.gpu.faults import LIBRARIES, runtime_library
from service.errors import DeviceError

ROOT = Path(__file__).parents[4]
RUNTIME = """
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
int cudaMemGetInfo(size_t* free, size_t* total) {{ *free = {free}UL; *total = {total}UL; return {result}; }}
int cudaMalloc(void** address, size_t size) {{ *address = malloc(size); return {result}; }}
int cudaMemset(void* address, int value, size_t size) {{ memset(address, value, size); return 0; }}
int cudaFree(void* address) {{ free(address); return 0; }}
int cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows, int kind) {{
    for (size_t row = 0; row < rows; row++)
        memcpy((char*)to + row * to_pitch, (const char*)from + row * from_pitch, width);
    return kind == 4 ? 0 : 1;
}}
int cudaStreamSynchronize(void* stream) {{ return stream != 0; }}
const char* cudaGetErrorString(int result) {{ return result == 2 ? "out of memory" : "no error"; }}
"""
SCRIPT = """
import onnxruntime, sys
onnxruntime.cuda_version = sys.argv[1]
from service.engine.gpu.memory import gpu_memory
from service.errors import DeviceError
try:
    print(*gpu_memory())
except DeviceError as error:
    sys.exit(str(error))
"""


def ask(
    folder: Path, cuda_version: str, library: str, script: str = SCRIPT, **values: int
) -> subprocess.CompletedProcess[str]:
    """Ask in a process that finds this library."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make libraries with")
    command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{library}", "-x", "c", "-", "-o", folder / library]
    subprocess.run(command, input=RUNTIME.format(**values), text=True, check=True)
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, cuda_version]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("major", sorted(LIBRARIES))
def test_more_than_four_gigabytes_are_counted(major: str, tmp_path: Path) -> None:
    done = ask(tmp_path, f"{major}.0", f"libcudart.so.{major}", free=70 << 30, total=80 << 30, result=0)
    assert done.stdout.split() == [str(70 << 30), str(80 << 30)], done.stderr


def test_an_error_of_the_runtime_is_named(tmp_path: Path) -> None:
    done = ask(tmp_path, "13.0", "libcudart.so.13", free=0, total=0, result=2)
    assert done.returncode == 1
    assert done.stderr.strip() == "the memory of the GPU is unknown: cudaMemGetInfo gives 2 (out of memory)"


def test_a_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "runtime_library", lambda: "libcudart.so.0")
    with pytest.raises(DeviceError, match=r"the memory of the GPU is unknown: libcudart.so.0: cannot open"):
        memory.gpu_memory()


def test_the_runtime_is_that_of_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.cuda_version", "12.9", raising=False)
    assert runtime_library() == "libcudart.so.12"


COPIES = """
import ctypes
import numpy as np
import onnxruntime
onnxruntime.cuda_version = "13.0"
from service.engine.gpu.memory import Copy, cuda_memory
memory = cuda_memory()
address = memory.allocate(1 << 20)
assert memory.num_bytes == 1 << 20
rows, back = np.arange(12, dtype=np.float32).reshape(3, 4), np.full((3, 2), -1, np.float32)
memory.copy([Copy(address, 100, rows.ctypes.data, 16, 16, 3)])
memory.copy([Copy(back.ctypes.data, 8, address + 4, 100, 8, 3)])
print(back.tolist())
zero = np.ones(1, np.float32)
memory.copy([Copy(zero.ctypes.data, 4, address + 16, 4, 4, 1)])
memory.free(address)
print(zero[0], memory.num_bytes)
"""


def test_blocks_are_copied_to_the_gpu_and_back(tmp_path: Path) -> None:
    done = ask(tmp_path, "13.0", "libcudart.so.13", script=COPIES, free=0, total=0, result=0)
    assert done.stdout.splitlines() == ["[[1.0, 2.0], [5.0, 6.0], [9.0, 10.0]]", "0.0 0"], done.stderr


@pytest.mark.parametrize(
    ("result", "error"), [(2, "MemoryError: CUDA failure 2: out of memory"), (700, "RuntimeError: CUDA failure 700")]
)
def test_a_refused_allocation_is_told_from_other_failures(result: int, error: str, tmp_path: Path) -> None:
    done = ask(tmp_path, "13.0", "libcudart.so.13", script=COPIES, free=0, total=0, result=result)
    assert error in done.stderr
