"""What is missing for CUDA is named, with drivers and libraries of a few lines that a compiler makes here.

The runtime pretends to be the build for CUDA 13; everything else is real, the refusal of the session included.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.engine.gpu.faults import LIBRARIES

ROOT = Path(__file__).parents[4]
DRIVER = """
int cuDriverGetVersion(int* version) {{ *version = {version}; return 0; }}
int cuInit(unsigned flags) {{ return {init}; }}
int cuDeviceGetCount(int* count) {{ *count = {count}; return 0; }}
"""
SCRIPT = """
import onnxruntime, sys
onnxruntime.cuda_version = "13.0"
onnxruntime.get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
onnxruntime.preload_dlls = lambda: print("Failed to load libcudnn.so.9")
from service.engine.sessions.device import resolve_device
from service.errors import DeviceError
try:
    print(resolve_device(sys.argv[1], allow_tf32=False))
except DeviceError as error:
    sys.exit(str(error))
"""
CUDA_12, CUDA_13 = (LIBRARIES[major] for major in ("12", "13"))
WITHOUT_CUDNN = tuple(name for name in CUDA_13 if "cudnn" not in name)
WORKING = {"version": 13000, "init": 0, "count": 1}


def resolve(
    folder: Path, driver: dict[str, int] | None, libraries: tuple[str, ...], setting: str = "cuda", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Resolve the device in a process that finds this driver and these libraries."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make libraries with")
    sources = {} if driver is None else {"libcuda.so.1": DRIVER.format(**driver)}
    for name, source in (sources | dict.fromkeys(libraries, "")).items():
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", "-", "-o", folder / name]
        subprocess.run(command, input=source, text=True, check=True)
    env = {key: value for key, value in os.environ.items() if not key.endswith("_VISIBLE_DEVICES")}
    env |= {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(ROOT), **variables}
    # The build for CPUs warns that it does not know the provider.
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, setting]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a driver")
def test_no_driver(tmp_path: Path) -> None:
    done = resolve(tmp_path, None, CUDA_13)
    assert done.returncode == 1
    assert (
        "the NVIDIA driver is missing: libcuda.so.1 cannot be loaded; CUDA 13.0 needs driver 580 or newer"
        in done.stderr
    )
    assert "cuDNN" not in done.stderr


@pytest.mark.parametrize(
    ("driver", "libraries", "said"),
    [
        (WORKING, WITHOUT_CUDNN, "cuDNN is missing: libcudnn.so.9 cannot be loaded"),
        (WORKING, CUDA_12, "libcudart.so.12 of CUDA 12 is here, and this onnxruntime was"),
        (WORKING, CUDA_12, "CUDA libraries are missing: "),
        (WORKING, WITHOUT_CUDNN, "-r constraints/gpu.txt` installs the libraries"),
        (WORKING | {"version": 12040}, CUDA_13, "too old: it supports CUDA 12.4, and this onnxruntime was built for"),
        (WORKING | {"init": 100}, CUDA_13, "100 (there is no GPU); CUDA_VISIBLE_DEVICES='7' may hide it"),
        (WORKING | {"init": 803}, CUDA_13, "803 (the driver and its kernel module have different versions)"),
        (WORKING | {"init": 46}, CUDA_13, "cuInit gives 46 (see CUresult in cuda.h)"),
        (WORKING | {"count": 0}, CUDA_13, "the NVIDIA driver shows no GPU"),
    ],
)  # fmt: skip
def test_a_fault_is_named(driver: dict[str, int], libraries: tuple[str, ...], said: str, tmp_path: Path) -> None:
    variables = {"CUDA_VISIBLE_DEVICES": "7"} if "VISIBLE" in said else {}
    done = resolve(tmp_path, driver, libraries, **variables)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("device 'cuda' was requested, but a session there fails: ")
    assert said in line
    assert done.stdout == ""


def test_without_a_fault_of_ours_the_runtime_says_its_own(tmp_path: Path) -> None:
    done = resolve(tmp_path, WORKING, CUDA_13)
    assert done.returncode == 1
    assert "fallback to CPU EP has been explicitly disabled" in done.stderr
    assert "missing" not in done.stderr


def test_auto_warns_with_the_same_reason(tmp_path: Path) -> None:
    done = resolve(tmp_path, WORKING, WITHOUT_CUDNN, "auto")
    assert (done.returncode, done.stdout) == (0, "cpu\n")
    assert "device 'auto': models run on the CPU" in done.stderr
    assert "cuDNN is missing" in done.stderr
