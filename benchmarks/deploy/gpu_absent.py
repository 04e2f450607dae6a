"""Start the service with EKIBEN_DEVICE=cuda where something is missing: seconds until it ends, and what it says.

    pip download --no-deps -d wheels onnxruntime-gpu && python -m zipfile -e wheels/*.whl gpu
    python -m benchmarks.deploy.gpu_absent --packages gpu [--times 3]

`--packages` holds the build of onnxruntime for GPUs, which is used instead of the installed one. Drivers and libraries
are those of tests/service/engine/gpu/test_faults.py, which a C compiler makes; on a machine with a GPU they
hide the real ones.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.serving import ROOT, environment, free_port
from tests.service.engine.gpu.test_faults import CUDA_12, CUDA_13, DRIVER, WITHOUT_CUDNN, WORKING

TIMEOUT_S = 120


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What a machine has: a driver, if any, the libraries, and the build of onnxruntime; `named` is in the message."""

    driver: dict[str, int] | None
    libraries: tuple[str, ...]
    named: str
    is_gpu_build: bool = True


CAUSES = {
    "no driver": Cause(driver=None, libraries=CUDA_13, named="the NVIDIA driver is missing"),
    "no cuDNN": Cause(driver=WORKING, libraries=WITHOUT_CUDNN, named="cuDNN is missing"),
    "CUDA 12 instead of 13": Cause(driver=WORKING, libraries=CUDA_12, named="the CUDA libraries have another version"),
    "the build for CPUs": Cause(driver=WORKING, libraries=CUDA_13, named="the build for CPUs", is_gpu_build=False),
}


def compile_libraries(folder: Path, cause: Cause) -> None:
    """Make the driver and the libraries, which have nothing but a name."""
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("a C compiler is needed: apt-get install gcc")
    sources = {} if cause.driver is None else {"libcuda.so.1": DRIVER.format(**cause.driver)}
    for name, source in (sources | dict.fromkeys(cause.libraries, "")).items():
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", "-", "-o", folder / name]
        subprocess.run(command, input=source, text=True, check=True)


def start(packages: Path, libraries: Path, cause: Cause) -> tuple[float, float, str]:
    """Return elapsed and CPU seconds, and the last line; exit if the service does not end with 1 and one such line."""
    env = environment(EKIBEN_DEVICE="cuda", LD_LIBRARY_PATH=str(libraries))
    if cause.is_gpu_build:
        env["PYTHONPATH"] = str(packages)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "service", "--port", str(free_port())],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    elapsed, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = done.stderr.splitlines()
    if done.returncode != 1 or not lines or cause.named not in lines[-1]:
        sys.exit(f"expected exit code 1 and {cause.named!r}, got {done.returncode}: {done.stderr}")
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, lines[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder with the unpacked wheel onnxruntime-gpu")
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}, {args.times} starts each\n")
    print("| missing | seconds: median | longest | CPU seconds, median |\n| --- | ---: | ---: | ---: |")
    said = []
    for name, cause in CAUSES.items():
        with tempfile.TemporaryDirectory() as folder:
            compile_libraries(Path(folder), cause)
            starts = [start(args.packages.resolve(), Path(folder), cause) for _ in range(args.times)]
        elapsed, cpu, lines = zip(*starts, strict=True)
        print(f"| {name} | {statistics.median(elapsed):.1f} | {max(elapsed):.1f} | {statistics.median(cpu):.1f} |")
        said.append(f"{name}: {lines[-1]}")
    print("\n" + "\n".join(said))


if __name__ == "__main__":
    main()
