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
int cudaMemGetInfo(size_t* free, size_t* total) {{ *free = {free}UL; *total = {total}UL; return {result}; }}
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


def ask(folder: Path, cuda_version: str, library: str, **values: int) -> subprocess.CompletedProcess[str]:
    """Ask in a process that finds this library."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make libraries with")
    command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{library}", "-x", "c", "-", "-o", folder / library]
    subprocess.run(command, input=RUNTIME.format(**values), text=True, check=True)
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(ROOT)}
    script = [sys.executable, "-c", SCRIPT, cuda_version]
    return subprocess.run(script, env=env, capture_output=True, text=True, check=False)


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
