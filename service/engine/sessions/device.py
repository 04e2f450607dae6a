"""Resolve the device setting to the device that the service runs on.

Invariant: "cuda" is returned only after a session has run on the GPU of this machine: a runtime that was built for CUDA
is not enough. "auto" selects the GPU under the same condition and falls back to the CPU.
"""

import os
from collections.abc import Mapping
from typing import Literal

import numpy as np
import onnxruntime as ort

from service.errors import DeviceError

Device = Literal["cpu", "cuda"]
DeviceSetting = Literal["auto", "cpu", "cuda"]

PROVIDERS: Mapping[Device, list[tuple[str, dict[str, str]]]] = {
    "cpu": [("CPUExecutionProvider", {})],
    "cuda": [
        # TF32 keeps 10 bits of each product; an exhaustive search would start again for every new batch size.
        ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),
        ("CPUExecutionProvider", {}),
    ],
}
# y = Relu(x): the smallest graph that runs a kernel.
PROBE_MODEL = bytes.fromhex(
    "08083a350a0e0a0178120179220452656c753a001201705a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)


def resolve_device(setting: DeviceSetting) -> Device:
    """Return the device to use; raises DeviceError if the setting is "cuda" and no session runs there."""
    try:
        if setting != "cpu":
            _run_on_cuda()
            return "cuda"
    except DeviceError:
        if setting == "cuda":
            raise
    return "cpu"


def require_provider(device: Device) -> None:
    """Load the device's libraries; raises DeviceError unless this onnxruntime was built for the device."""
    required, available = PROVIDERS[device][0][0], ort.get_available_providers()
    if required not in available:
        raise DeviceError(f"device {device!r} was requested, but this onnxruntime has only {', '.join(available)}")
    if device == "cuda":
        # Some convolutions ignore the provider option use_tf32.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        ort.preload_dlls()


def _run_on_cuda() -> None:
    require_provider("cuda")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(PROBE_MODEL, options, providers=[PROVIDERS["cuda"][0]])
        session.run(None, {"x": np.zeros(1, np.float32)})
    except Exception as error:  # onnxruntime raises bare subclasses of Exception
        raise DeviceError(f"device 'cuda' was requested, but a session there fails: {error}") from error
    if session.get_providers()[0] != PROVIDERS["cuda"][0][0]:
        raise DeviceError(f"device 'cuda' was requested, but the session got {', '.join(session.get_providers())}")
