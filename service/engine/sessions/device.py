"""Resolve the device setting to the device that the service runs on.

Invariant: "cuda" is returned only after a session has run on the GPU of this machine: a runtime that was built for CUDA
is not enough. "auto" selects the GPU under the same condition and falls back to the CPU.

TF32 keeps 10 bits of the inputs of each product. The provider option use_tf32=0 does not forbid it: with cuDNN 9, the
convolutions of onnxruntime try again with TF32 where cuDNN supports no plan without tensor cores (CUDA provider,
nn/conv.cc, CreateCudnnFeExecutionPlan). NVIDIA_TF32_OVERRIDE=0 forbids it in every library, but for a whole process,
and only if it is set before CUDA starts.
"""

import contextlib
import io
import logging
import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Literal, get_args

import numpy as np
import onnxruntime as ort

from service.engine.gpu.faults import find_cuda_faults, find_library_faults
from service.errors import DeviceError

log = logging.getLogger(__name__)

Device = Literal["cpu", "cuda"]
DeviceSetting = Literal["auto", "cpu", "cuda"]
VARIABLE = "EKIBEN_DEVICE"

PROVIDERS: Mapping[Device, list[tuple[str, dict[str, str]]]] = {
    "cpu": [("CPUExecutionProvider", {})],
    "cuda": [
        # An exhaustive search would start again for every new batch size; an arena that grows by doubling takes up to
        # twice what is needed.
        (
            "CUDAExecutionProvider",
            {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"},
        ),
        ("CPUExecutionProvider", {}),
    ],
}
TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
# y = Relu(x): the smallest graph that runs a kernel.
PROBE_MODEL = bytes.fromhex(
    "08083a350a0e0a0178120179220452656c753a001201705a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)


def resolve_device(setting: DeviceSetting | None, *, allow_tf32: bool) -> Device:
    """Return the device to use; raises DeviceError if the setting is "cuda" and no session runs there.

    A setting of None is that of EKIBEN_DEVICE, else "auto". `allow_tf32` is that of `require_provider`.
    """
    setting = setting or _setting_of_environment()
    try:
        if setting != "cpu":
            require_provider("cuda", allow_tf32=allow_tf32)
            _run_on_cuda()
            return "cuda"
    except DeviceError as error:
        if setting == "cuda":
            raise
        # A runtime for GPUs that computes on the CPU is a fault of the machine; one for CPUs is somebody's choice.
        level = logging.WARNING if _is_listed("cuda") else logging.INFO
        log.log(level, "device 'auto': models run on the CPU, because a session on CUDA is not possible: %s", error)
    return "cpu"


def check_device(setting: DeviceSetting) -> None:
    """Raise DeviceError if the setting is "cuda" and no session runs there.

    In a process of its own: those that are forked afterwards could not use a CUDA context of this one.
    """
    if setting == "cuda":
        import multiprocessing  # noqa: PLC0415 - not needed for other devices, as the next one
        from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415

        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as child:
            child.submit(resolve_device, setting, allow_tf32=False).result()


def _setting_of_environment() -> DeviceSetting:
    value = os.environ.get(VARIABLE) or "auto"
    for setting in get_args(DeviceSetting):
        if value == setting:
            return setting
    raise DeviceError(f"{VARIABLE}={value!r}: expected {', '.join(get_args(DeviceSetting))}")


def require_provider(device: Device, *, allow_tf32: bool) -> None:
    """Load the device's libraries; raises DeviceError unless this onnxruntime was built for the device.

    The first call for a GPU decides for the process: unless it allows TF32, no library uses it.
    """
    if not _is_listed(device):
        available = ", ".join(ort.get_available_providers())
        faults = "; ".join(find_cuda_faults())
        raise DeviceError(f"device {device!r} was requested, but this onnxruntime has only {available}: {faults}")
    if device == "cuda":
        if not allow_tf32 and not _load_libraries.cache_info().currsize:
            os.environ[TF32_OVERRIDE] = "0"
        _load_libraries()


def is_tf32_forbidden() -> bool:
    """Return whether no library of this process uses TF32 on a GPU."""
    return os.environ.get(TF32_OVERRIDE) == "0"


def _is_listed(device: Device) -> bool:
    return PROVIDERS[device][0][0] in ort.get_available_providers()


@cache
def _load_libraries() -> None:
    """Load CUDA's libraries from NVIDIA's packages, once; onnxruntime prints what it does not find."""
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()


@contextlib.contextmanager
def _silent_onnxruntime() -> Iterator[None]:
    """Have onnxruntime write nothing to stderr about a provider that it cannot load: the error says it."""
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)


def operator_session(model: bytes, device: Device) -> ort.InferenceSession:
    """Return a session of a graph of one operator, which runs on the device alone."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if device == "cuda":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return ort.InferenceSession(model, options, providers=PROVIDERS[device][:1])


def _run_on_cuda() -> None:
    try:
        with _silent_onnxruntime():
            session = operator_session(PROBE_MODEL, "cuda")
        session.run(None, {"x": np.zeros(1, np.float32)})
    except Exception as error:  # onnxruntime raises bare subclasses of Exception
        reason = "; ".join(find_cuda_faults()) or " ".join(str(error).split())
        raise DeviceError(f"device 'cuda' was requested, but a session there fails: {reason}") from error
    if session.get_providers()[0] != PROVIDERS["cuda"][0][0]:
        reason = "; ".join(find_cuda_faults()) or "onnxruntime names no reason"
        actual = ", ".join(session.get_providers())
        raise DeviceError(f"device 'cuda' was requested, but the session got {actual}: {reason}")
    # The probe does not need cuDNN, and a convolution would fail at its first request.
    if faults := find_library_faults():
        raise DeviceError(f"device 'cuda' was requested, but models would fail there: {'; '.join(faults)}")
