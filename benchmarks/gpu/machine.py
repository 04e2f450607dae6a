"""What the machine is, how much memory its device uses, and whether the service refuses it without a library."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime as ort

from service.engine.process.memory import resident_bytes
from service.engine.sessions.device import Device
from tests.e2e.serving import free_port

ROOT = Path(__file__).parents[2]
CUDNN = "libcudnn.so.9"
REFUSAL, REFUSAL_TIMEOUT_S = "device 'cuda' was requested", 120.0


def describe(device: Device) -> Iterator[tuple[str, str]]:
    """Hardware, driver and versions, a row each."""
    if device == "cuda":
        yield "GPU, driver, memory", query("name,driver_version,memory.total")
    yield "processor", f"{platform.machine()}, {os.cpu_count()} cores"
    yield "Python", platform.python_version()
    yield "onnxruntime", f"{ort.__version__}, built for CUDA {getattr(ort, 'cuda_version', '') or 'none'}"
    for package in sorted(importlib.metadata.distributions(), key=lambda one: one.name or ""):
        if (package.name or "").startswith("nvidia-"):
            yield package.name, package.version


def query(fields: str) -> str:
    """What nvidia-smi says about the first GPU."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "--id=0"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def used_bytes(device: Device) -> int:
    """The memory in use on the GPU, or that of this process."""
    return int(query("memory.used")) << 20 if device == "cuda" else resident_bytes()


def refusal(device: Device, bundles: Path) -> str | None:
    """The line with which the service refuses the GPU without cuDNN, or on a CPU any GPU; None if it starts."""
    with _hidden(_cudnn() if device == "cuda" else []):
        command = [sys.executable, "-m", "service", "--port", str(free_port())]
        env = {**os.environ, "EKIBEN_DEVICE": "cuda", "EKIBEN_BUNDLES": str(bundles)}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=REFUSAL_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return None
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if REFUSAL in line]
    return lines[-1] if done.returncode and lines else None


def _cudnn() -> list[Path]:
    packages = Path(ort.__file__).parents[1] / "nvidia"
    return sorted(packages.glob(f"*/lib/{CUDNN}"))


@contextmanager
def _hidden(files: list[Path]) -> Iterator[None]:
    """Move files of this environment aside, and back."""
    names = [(path, path.with_name(f"{path.name}.hidden")) for path in files]
    for path, aside in names:
        shutil.move(path, aside)
    try:
        yield
    finally:
        for path, aside in names:
            shutil.move(aside, path)
