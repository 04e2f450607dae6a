"""Which GPUs a process may use, as CUDA_VISIBLE_DEVICES names them: numbers, or UUIDs of GPUs and of MIG instances."""

import os
from pathlib import Path


def visible_gpus(devices: Path = Path("/dev")) -> list[str]:
    """Return the names that CUDA_VISIBLE_DEVICES lists, otherwise the numbers of the GPUs of this machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for part in visible.split(",") if (name := part.strip())]
    # CUDA numbers the GPUs that it finds from 0; the names of their files may have gaps.
    return [str(number) for number, _ in enumerate(devices.glob("nvidia[0-9]*"))]


def gpu_of_worker(index: int) -> str | None:
    """Return the GPU of a worker, in turn, or None if there are fewer than two to choose from."""
    gpus = visible_gpus()
    return gpus[index % len(gpus)] if len(gpus) > 1 else None
