"""Build the image twice, run it as production should, and show what it promises.

    python -m benchmarks.deploy.container [--bundles bundles] [--cache FOLDER] [--image IMAGE | --bento] [--kills 5]
        [--stops 5]

Two builds in OCI's format have to have one digest, and the image that is run, in Docker's format with its health check,
has to have their layers. It runs as its own user on a read-only root, with limits of memory and CPU time. `start` is
the time from the command until /readyz is 200, with every bundle verified. `lost` counts requests without a complete
response while containers are stopped by SIGTERM under the load of 16 clients, which send again and again until they are
refused; `recovery` is the time from SIGKILL of a worker until it is ready again. `--image` is run instead of building
one, and `--bento` the image of the bento, which has the bundles inside.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

import psutil

from benchmarks.connection import Connection
from benchmarks.deploy.engine import (
    PODMAN,
    build,
    build_bento,
    layers_of,
    make_base,
    mounted,
    output,
    run_inside,
    running,
    size_bytes,
    unmet_requirement,
)
from benchmarks.requests import wait_until_ready
from tests.e2e.serving import free_port

NAME = "ekiben-prove"
MEMORY, CPUS = "1500m", "2"
NUM_CLIENTS = 16
LOAD_S = 2.0
REQUESTS = {
    "/classify": {"model": "mnist-cnn", "images": [[[0] * 28] * 28]},
    "/sequence-predict": {"model": "news-lstm", "texts": ["Open a connection to the server."]},
    "/generate": {"model": "mnist-gan", "count": 1, "seed": 1},
}
# Prints the user, what comes of writing, the limits that the service sees, and what should not be there.
PROBE = """
import importlib.util, os, shutil
from service.container.limits import available_cores, memory_limit
write = "done"
try:
    open("/app/x", "w")
except OSError as error:
    write = error.strerror
present = [name for name in ("pip", "gcc", "cc", "git", "curl", "make") if shutil.which(name)]
present += [name for name in ("torch", "pip") if importlib.util.find_spec(name)]
print(os.getuid(), write, available_cores(), (memory_limit() or 0) >> 20, present, sep="|")
"""


class Trial:
    """Containers of one image."""

    def __init__(self, image: str, bundles: Path | None) -> None:
        self.image, self.port = image, free_port()
        self._volumes = ["-v", f"{bundles.resolve()}:/bundles:ro"] if bundles else []

    def container(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        return running(
            self.image,
            NAME,
            memory=MEMORY,
            cpus=CPUS,
            options=["-e", "EKIBEN_ALLOW_ANONYMOUS=true", *self._volumes],
            arguments=["--port", str(self.port)],
        )

    def wait_until_ready(self) -> None:
        wait_until_ready(f"http://127.0.0.1:{self.port}", timeout_s=300)

    def ask(self, path: str) -> bytes:
        body = json.dumps(REQUESTS[path]).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            content: bytes = response.read()
        return content


def workers() -> list[psutil.Process]:
    """The worker processes inside the container, seen from outside: tini, master, workers."""
    init = psutil.Process(int(output(*PODMAN, "inspect", "--format", "{{.State.Pid}}", NAME)))
    return init.children()[0].children()


def check_inside(trial: Trial) -> dict[str, str]:
    """Return the user, root file system and limits of the container; exit if it is not isolated, or not ready."""
    for path in REQUESTS:
        trial.ask(path)
    uid, write, cores, memory, present = run_inside(NAME, "python", "-c", PROBE).split("|")
    check = [*PODMAN, "exec", NAME, "python", "-m", "service.container.health", "--port", str(trial.port)]
    health = subprocess.run(check, check=False)
    if uid == "0" or write != "Read-only file system" or present != "[]" or health.returncode:
        sys.exit(f"uid {uid}, writing: {write}, present: {present}, health check: {health.returncode}")
    return {"user": uid, "root": write.lower(), "cores seen": cores, "memory limit seen, MiB": memory}


def measure_start(trial: Trial, times: int) -> list[float]:
    """Seconds from the command to readiness."""
    found = []
    for _ in range(times):
        begin = time.monotonic()
        with trial.container():
            trial.wait_until_ready()
            found.append(time.monotonic() - begin)
    return found


def measure_recovery(trial: Trial, kills: int) -> list[float]:
    """Seconds from SIGKILL of the worker to readiness; the container goes on."""
    found = []
    with trial.container() as process:
        trial.wait_until_ready()
        for _ in range(kills):
            (worker,) = workers()
            begin = time.monotonic()
            worker.kill()
            psutil.wait_procs([worker], 10)
            trial.wait_until_ready()
            trial.ask("/classify")
            found.append(time.monotonic() - begin)
            time.sleep(1)
        if process.poll() is not None:
            sys.exit(f"the container ended with {process.returncode}")
    return found


async def client(port: int, counts: Counter[str], stopping: asyncio.Event) -> None:
    """Classify again and again on one connection, until the service refuses because it drains."""
    body = json.dumps(REQUESTS["/classify"]).encode()
    connection = await Connection.open(port)
    while True:
        try:
            response = await connection.request("POST", "/classify", body, {"content-type": "application/json"})
        except (OSError, EOFError):
            counts["lost"] += 1
            return
        if response.status == 503 and stopping.is_set():
            counts["refused"] += 1
            connection.close()
            return
        counts["answered" if response.status == 200 else f"status {response.status}"] += 1


async def stop_under_load(trial: Trial) -> Counter[str]:
    counts: Counter[str] = Counter()
    stopping = asyncio.Event()
    clients = [asyncio.create_task(client(trial.port, counts, stopping)) for _ in range(NUM_CLIENTS)]
    await asyncio.sleep(LOAD_S)
    stopping.set()
    pid = int(output(*PODMAN, "inspect", "--format", "{{.State.Pid}}", NAME))
    os.kill(pid, signal.SIGTERM)  # to the init of the container, as an engine does
    await asyncio.gather(*clients)
    return counts


def measure_stops(trial: Trial, stops: int) -> Counter[str]:
    """Count the responses of clients while containers are stopped."""
    counts: Counter[str] = Counter()
    for _ in range(stops):
        with trial.container() as process:
            trial.wait_until_ready()
            counts += asyncio.run(stop_under_load(trial))
            process.wait(60)
            counts[f"exit code {process.returncode}"] += 1
    return counts


def environment_bytes(root: Path, folder: str) -> int:
    return sum(path.lstat().st_size for path in (root / folder).rglob("*") if not path.is_dir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--cache", type=Path, help="folder of the system of the base image, made if need be")
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--image", help="an image that was built before")
    images.add_argument("--bento", action="store_true", help="the image of the bento")
    parser.add_argument("--environment", default="opt/ekiben", help="folder of the Python environment in the image")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--stops", type=int, default=5)
    options = parser.parse_args()
    reason = unmet_requirement()
    if reason is not None:
        sys.exit(f"the container cannot be tried here: {reason}")
    image, rows = options.image or f"{NAME}{'-bento' * options.bento}:0.1.0", {}
    if options.image is None:
        make_base(options.cache)
    if options.bento:
        build_bento(image)
    elif options.image is None:
        digests = [build(NAME, form="oci") for _ in range(2)]
        if digests[0] != digests[1]:
            sys.exit(f"built twice, with different digests: {' '.join(digests)}")
        rows["digest, both builds"] = digests[0][:12]
        layers = layers_of(image)
        build(NAME)
        if layers_of(image) != layers:
            sys.exit(f"built in Docker's format, with different layers: {layers_of(image)}, expected {layers}")
    with mounted(image) as root:
        rows["environment, MB"] = f"{environment_bytes(root, options.environment) / 1e6:.0f}"
    rows["image, MB"] = f"{size_bytes(image) / 1e6:.0f}"
    trial = Trial(image, None if options.bento else options.bundles)
    with trial.container():
        trial.wait_until_ready()
        rows |= check_inside(trial)
    starts = measure_start(trial, 3)
    rows["start, s: median, longest"] = f"{statistics.median(starts):.1f}, {max(starts):.1f}"
    recovery = measure_recovery(trial, options.kills)
    rows["recovery, s: median, longest"] = f"{statistics.median(recovery):.1f}, {max(recovery):.1f}"
    counts = measure_stops(trial, options.stops)
    for name, count in sorted(counts.items()):
        rows[f"{options.stops} stops: {name}"] = f"{count:,}"
    models = len(list(options.bundles.glob("*/current")))
    print(f"{models} models, {CPUS} CPUs, {MEMORY} of memory, on {os.cpu_count()} cores")
    print("| | |\n| --- | ---: |")
    for name, value in rows.items():
        print(f"| {name} | {value} |")
    sys.exit(bool(counts["lost"] or counts["exit code 0"] != options.stops))


if __name__ == "__main__":
    main()
