"""Name what this machine lacks for CUDA: the driver, a GPU, a library, or another version of one of them.

Invariant: a session that runs decides whether CUDA is used; what is found here explains why none does.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

DRIVER = "libcuda.so.1"
# Results of cuInit and cuDeviceGetCount (cuda.h) that have a cause of their own.
RESULTS = {
    3: "the driver is not initialised",
    100: "there is no GPU",
    101: "the GPU's number is invalid",
    802: "the system is not ready; NVSwitch needs its fabric manager",
    803: "the driver and its kernel module have different versions",
    804: "the GPU does not support the forward compatibility package",
    999: "unknown error; are the devices /dev/nvidia* present?",
}
# Libraries that onnxruntime's CUDA provider needs, by the CUDA major version that it was built for. It is not
# linked with cuDNN, and opens it later. cuFFT, which it opens for Fourier transforms, is not needed here.
LIBRARIES = {
    "12": ("libcudart.so.12", "libcublas.so.12", "libcublasLt.so.12", "libcurand.so.10", "libcudnn.so.9"),
    "13": ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10", "libcudnn.so.9"),
}
MIN_DRIVERS = {"12": "525", "13": "580"}
INSTALL = "`pip install --require-hashes -r constraints/gpu.txt` installs the libraries"


def find_cuda_faults() -> list[str]:
    """Return one clause for each thing that is missing or of another version; empty if all of it is there."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return [
            "this package onnxruntime is the build for CPUs: install the dependency group gpu instead of serve, in an "
            "environment of its own, because the two builds overwrite each other's files"
        ]
    return [*_driver_faults(_built_for()), *find_library_faults()]


def _driver_faults(built_for: str) -> list[str]:
    major = built_for.partition(".")[0]
    need = f"CUDA {built_for} needs driver {MIN_DRIVERS.get(major, 'of that version')} or newer"
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return [
            f"the NVIDIA driver is missing: {DRIVER} cannot be loaded; {need} on the host, and a container must be "
            f"started with its devices (`docker run --gpus all`)"
        ]
    version = ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    supported, minor = divmod(version.value, 1000)
    if major.isdigit() and supported < int(major):
        return [
            f"the NVIDIA driver is too old: it supports CUDA {supported}.{minor // 10}, and this onnxruntime was built "
            f"for CUDA {built_for}; {need}"
        ]
    if result := driver.cuInit(0):
        return [f"the NVIDIA driver finds no usable GPU: cuInit gives {_result(result)}{_visible()}"]
    count = ctypes.c_int(0)
    result = driver.cuDeviceGetCount(ctypes.byref(count))
    if result or not count.value:
        return [f"the NVIDIA driver shows no GPU: cuDeviceGetCount gives {_result(result)}{_visible()}"]
    return []


def find_library_faults() -> list[str]:
    """Return what is missing of CUDA's libraries, and the command that installs them."""
    major = _built_for().partition(".")[0]
    absent = [name for name in LIBRARIES.get(major, ()) if not _loads(name)]
    faults = []
    for other in sorted(set(LIBRARIES) - {major}):
        present = [name for name in LIBRARIES[other] if name not in LIBRARIES.get(major, ()) and _is_present(name)]
        if absent and present:
            faults.append(
                f"the CUDA libraries have another version: {present[0]} of CUDA {other} is here, and this onnxruntime "
                f"was built for CUDA {major}"
            )
    if cudnn := [name for name in absent if "cudnn" in name]:
        faults.append(f"cuDNN is missing: {cudnn[0]} cannot be loaded")
    if cuda := [name for name in absent if "cudnn" not in name]:
        faults.append(f"CUDA libraries are missing: {', '.join(cuda)} cannot be loaded")
    return [*faults, INSTALL] if faults else []


def runtime_library() -> str:
    """Return the name of the CUDA runtime that onnxruntime is linked with."""
    return LIBRARIES.get(_built_for().partition(".")[0], LIBRARIES["13"])[0]


def _built_for() -> str:
    return str(getattr(ort, "cuda_version", "") or "")


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _is_present(name: str) -> bool:
    """True if the loader finds the library, or a package of NVIDIA beside onnxruntime contains it."""
    packages = Path(ort.__file__).parents[1] / "nvidia"
    return _loads(name) or any(packages.glob(f"*/lib/{name}"))


def _result(number: int) -> str:
    return f"{number} ({RESULTS.get(number, 'see CUresult in cuda.h')})"


def _visible() -> str:
    names: Sequence[str] = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
    found = [f"{name}={os.environ[name]!r}" for name in names if name in os.environ]
    return f"; {' and '.join(found)} may hide it" if found else ""
