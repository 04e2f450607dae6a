"""Which device the service runs on: what is asked for, or nothing.

A wish for "cuda" is granted only if a session really lands on the GPU here: that the runtime was built for it, or that
an environment variable speaks of one, proves nothing. "auto" takes the GPU under the same condition, else the CPU.
"""

import os
from collections.abc import Mapping
from typing import Literal

import numpy as np
import onnxruntime as ort

from service.errors import DeviceError

Device = Literal["cpu", "cuda"]
DeviceWish = Literal["auto", "cpu", "cuda"]

PROVIDERS: Mapping[Device, list[tuple[str, dict[str, str]]]] = {
    "cpu": [("CPUExecutionProvider", {})],
    "cuda": [
        # TF32 keeps 10 bits of a product; an exhaustive search would start anew for each batch size.
        ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),
        ("CPUExecutionProvider", {}),
    ],
}
PROBE = bytes.fromhex(  # y = Relu(x), the smallest graph with a kernel
    "08083a350a0e0a0178120179220452656c753a001201705a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)


def resolve_device(wish: DeviceWish) -> Device:
    """Raises DeviceError if "cuda" is wished for and no session runs there."""
    if wish == "cpu":
        return "cpu"
    try:
        _try_cuda()
    except DeviceError:
        if wish == "cuda":
            raise
        return "cpu"
    return "cuda"


def require(device: Device) -> None:
    """Raise DeviceError unless this onnxruntime was built for the device, and ready its libraries."""
    wanted, available = PROVIDERS[device][0][0], ort.get_available_providers()
    if wanted not in available:
        raise DeviceError(f"device {device!r} was asked for, this onnxruntime has only {', '.join(available)}")
    if device == "cuda":
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # some convolutions do not listen to use_tf32
        ort.preload_dlls()


def _try_cuda() -> None:
    require("cuda")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(PROBE, options, providers=[PROVIDERS["cuda"][0]])
        session.run(None, {"x": np.zeros(1, np.float32)})
    except Exception as error:  # onnxruntime raises bare subclasses of Exception
        raise DeviceError(f"device 'cuda' was asked for, a session there fails: {error}") from error
    if session.get_providers()[0] != PROVIDERS["cuda"][0][0]:
        raise DeviceError(f"device 'cuda' was asked for, a session got {', '.join(session.get_providers())}")
