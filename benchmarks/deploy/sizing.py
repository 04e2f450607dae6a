"""Measure the memory that each model adds to a service of one worker, before and after load.

    python -m benchmarks.deploy.sizing [--bundles bundles] [--seconds 3]

Every model is served alone. The memory is the proportional set size of all processes of the service; what a service
without models takes is subtracted. Load is deploy/load.py with 8 clients, which language models
get none of, because they have no example. A second worker takes as much again
as the worker does, but for the weights in data files, which workers share.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from tests.e2e.serving import ROOT, environment, start

COMMAND = (sys.executable, "-m", "service")


def proportional_mb(parent: psutil.Process) -> float:
    """The memory of the master, its worker and the process that checks bundles, which ends after a minute."""
    return sum(process.memory_full_info().pss for process in (parent, *parent.children(recursive=True))) / 1e6


def measure(bundles: Path, folder: Path, seconds: float) -> tuple[float, float]:
    """Return the MB of a service over these bundles when it is ready, and after load."""
    has_models = any(bundles.iterdir())
    env = environment(EKIBEN_BUNDLES=str(bundles), EKIBEN_THREADS="1", BENTOML_HOME=str(folder))
    with start(COMMAND, env=env, cwd=ROOT, log=folder / "log", status=200 if has_models else 503) as host:
        parent = psutil.Process(host.process.pid)
        time.sleep(2)
        before = proportional_mb(parent)
        if not has_models:
            return before, before
        load = [sys.executable, str(ROOT / "deploy" / "load.py"), host.address, "--seconds", str(seconds)]
        done = subprocess.run(load, check=False, capture_output=True, text=True)
        if done.returncode and "no READY model has an example" not in done.stderr:
            sys.exit(done.stderr)
        httpx.get(f"{host.address}/readyz", timeout=30).raise_for_status()
        return before, proportional_mb(parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--seconds", type=float, default=3)
    args = parser.parse_args()
    models = sorted(path.parent for path in args.bundles.glob("*/current"))
    if not models:
        sys.exit(f"no bundles in {args.bundles}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "none").mkdir()
        base, _ = measure(folder / "none", folder, args.seconds)
        print(f"a service without models takes {base:.0f} MB\n")
        print("| model | bundle, MB | more when ready, MB | more after load, MB |\n| --- | ---: | ---: | ---: |")
        for model in models:
            version = (model / "current").read_text().strip()
            size_mb = sum(path.stat().st_size for path in (model / version).iterdir()) / 1e6
            shutil.copytree(model, folder / model.name / model.name)
            ready, loaded = measure(folder / model.name, folder, args.seconds)
            print(f"| {model.name} | {size_mb:.1f} | {ready - base:.0f} | {loaded - base:.0f} |", flush=True)


if __name__ == "__main__":
    main()
