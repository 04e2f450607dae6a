"""Install the package with pip in a fresh environment, and use it from a folder without the sources.

    python -m benchmarks.deploy.install [--extras serve]

Creates an environment, runs `pip install ".[serve]"`, then `ekiben --help`, `ekiben inspect` and `ekiben serve` in an
empty folder, and asks the service for an answer. The exit status is 1 if any of them fails.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.e2e.serving import ROOT, environment, serving

MODEL = "mnist-cnn"
DIGIT = ROOT / "docs" / "examples" / "seven.png"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", default="serve", help="extras of the package (default: serve)")
    options = parser.parse_args()
    print("| step | seconds | result |\n| --- | ---: | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        venv, elsewhere = Path(temporary) / "venv", Path(temporary) / "elsewhere"
        elsewhere.mkdir()
        ekiben = str(venv / "bin" / "ekiben")
        pip = [str(venv / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", f".[{options.extras}]"]
        bundles = str(ROOT / "bundles")
        _report("python -m venv", lambda: _run([sys.executable, "-m", "venv", str(venv)], ROOT))
        _report(f'pip install ".[{options.extras}]"', lambda: _run(pip, ROOT) or _size(venv))
        _report("ekiben --version", lambda: _run([ekiben, "--version"], elsewhere))
        _report("ekiben --help", lambda: f"{len(_run([ekiben, '--help'], elsewhere).splitlines())} lines")
        inspect = [ekiben, "inspect", MODEL, "--bundles", bundles]
        _report(f"ekiben inspect {MODEL}", lambda: _run(inspect, elsewhere).splitlines()[0])
        _report("ekiben serve --bundles", lambda: _serve([ekiben, "serve", "--bundles", bundles], elsewhere))
    return 0


def _report(step: str, work: Callable[[], str]) -> None:
    start = time.perf_counter()
    result = work()
    print(f"| `{step}` | {time.perf_counter() - start:.2f} | {result} |", flush=True)


def _run(command: list[str], folder: Path) -> str:
    """What the command prints; ends the process with its messages if it fails."""
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
    return done.stdout.strip()


def _size(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:,.0f} MB"


def _serve(command: list[str], folder: Path) -> str:
    """The label of a picture, from a service that runs in `folder`."""
    with serving(command, env=environment(), cwd=folder, log=folder / "log") as address:
        headers = {"content-type": "image/png"}
        response = httpx.post(f"{address}/classify?model={MODEL}", content=DIGIT.read_bytes(), headers=headers)
        return f"a seven is {response.raise_for_status().json()['predictions'][0]['label']}"


if __name__ == "__main__":
    sys.exit(main())
