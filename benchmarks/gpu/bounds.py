"""Load bundles as the service does on a GPU: many runs at the same time stay within the bound of each session."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service.engine.gpu.memory import gpu_memory
from service.engine.limits import Limits
from service.engine.repository.loader import Loader
from service.engine.repository.version import Version
from service.engine.runner import Runner
from service.engine.verification.gpu_bound import GpuBounds
from service.engine.verification.shapes import largest_shapes, zero_inputs
from service.errors import BundleError, DeviceError
from service.manifest import Manifest
from service.tasks.replay import replay_requests

THREADS, ROUNDS = 2, 20


def prove_bounds(bundles: Path, manifests: Sequence[Manifest]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return what each model takes of the GPU, its bound and what it took under load, in MiB, and what fails."""
    limits = Limits()
    loader = Loader(
        device="cuda",
        replay_requests=replay_requests,
        planner=Runner(threads=THREADS, limits=limits),
        limits=limits,
        gpu_bounds=GpuBounds(num_runs=THREADS + 1, kv_cache_bytes=limits.kv_cache_bytes),
    )
    rows, failures = list[tuple[str, ...]](), list[str]()
    for manifest in manifests:
        free_bytes = gpu_memory().free
        try:
            version = Version(name=manifest.name, version=manifest.version)
            *_, ready = loader.stages(version, bundles / manifest.name / manifest.version)
            assert ready.model is not None
            assert ready.memory is not None
            inputs = [zero_inputs(manifest, shape) for shape in largest_shapes(manifest, limits)]
            with ThreadPoolExecutor(THREADS + 1) as pool:
                list(pool.map(ready.model.session.run, inputs * ROUNDS))
        except (BundleError, DeviceError, RuntimeError) as error:
            failures.append(str(error))
            continue
        taken_bytes, max_bytes = free_bytes - gpu_memory().free, ready.memory["max_device_bytes"]
        sizes = (ready.memory["device_bytes"], max_bytes, taken_bytes)
        rows.append((manifest.name, *(f"{size / (1 << 20):,.0f}" for size in sizes)))
        if taken_bytes > max_bytes:
            failures.append(f"{manifest.name} took {taken_bytes:,} bytes of the GPU, its bound is {max_bytes:,}")
    return rows, failures
