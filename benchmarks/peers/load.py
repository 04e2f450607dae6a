"""Measure one load point: a closed loop over some connections for some seconds, with the CPU time of the server."""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.bodies import EncodedRequest, WireFormat
from benchmarks.peers.processes import PeerError, Server
from benchmarks.peers.workloads import NUM_FULL, Workload

SCRIPT = Path(__file__).parent / "wrk.lua"


@dataclass(frozen=True, kw_only=True)
class Load:
    model: str
    body: str
    rows: int
    connections: int


@dataclass(frozen=True, kw_only=True)
class Point:
    """The entry of `results.json` for one load of one peer."""

    peer: str
    model: str
    body: str
    rows: int
    connections: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us_per_request: float
    errors: int

    def summary(self) -> str:
        return (
            f"{self.body}, {self.rows} rows, {self.connections} connections: {self.cpu_us_per_request:,.0f} µs CPU, "
            f"{self.requests_per_s:,.0f} requests/s, p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms, "
            f"{self.errors} errors"
        )


def generator() -> str:
    return "wrk" if shutil.which("wrk") else "client"


def measure(
    peer: str, server: Server, load: Load, workload: Workload, wire_format: WireFormat, *, seconds: int, warm_up_s: int
) -> Point:
    """Run the load for `seconds`, after a warm-up under the same load."""
    requests = _requests(load, workload, wire_format)
    with tempfile.TemporaryDirectory(prefix="bodies-") as name:
        folder = Path(name)
        write_bodies(requests, folder)
        url = f"http://127.0.0.1:{server.port}{requests[0].path}"
        _generate(url, folder, load.connections, warm_up_s)
        cpu_s = server.cpu_s()
        result = _generate(url, folder, load.connections, seconds)
        cpu_s = server.cpu_s() - cpu_s
    return _point(peer, load, result, cpu_s)


def measure_loop(
    peer: str, server: Server, load: Load, workload: Workload, wire_format: WireFormat, *, seconds: int
) -> Point:
    """Measure the loop without a server, whose process counts its own requests and CPU time."""
    requests = _requests(load, workload, wire_format)
    with tempfile.TemporaryDirectory(prefix="bodies-") as name:
        write_bodies(requests, Path(name))
        command = [*server.command, load.model, name, str(seconds)]
        result = _run(command, seconds * 2, env=server.environment)
    return _point(peer, load, result, result["cpu_s"])


def _point(peer: str, load: Load, result: dict[str, Any], cpu_s: float) -> Point:
    if not result["requests"]:
        raise PeerError(f"completed no request in {result['seconds']:.0f} s")
    return Point(
        peer=peer,
        **asdict(load),
        requests_per_s=round(result["requests"] / result["seconds"], 1),
        p50_ms=round(result["p50_ms"], 3),
        p99_ms=round(result["p99_ms"], 3),
        cpu_us_per_request=round(cpu_s / result["requests"] * 1e6, 1),
        errors=result["errors"],
    )


def _requests(load: Load, workload: Workload, wire_format: WireFormat) -> list[EncodedRequest]:
    return [wire_format.encode(workload, slice(i, i + load.rows)) for i in range(0, NUM_FULL, load.rows)]


def write_bodies(requests: list[EncodedRequest], folder: Path) -> None:
    for number, request in enumerate(requests, start=1):
        headers = "".join(f"{key}: {value}\n" for key, value in request.headers.items())
        (folder / f"{number}.headers").write_text(headers)
        (folder / str(number)).write_bytes(request.body)


def _generate(url: str, folder: Path, connections: int, seconds: int) -> dict[str, Any]:
    if generator() == "wrk":
        options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "-s", str(SCRIPT)]
        command = ["wrk", *options, url, "--", str(folder)]
    else:
        command = [sys.executable, "-m", "benchmarks.peers.client", url, str(folder), str(connections), str(seconds)]
    return _run(command, seconds)


def _run(command: list[str], seconds: int, env: dict[str, str] | None = None) -> dict[str, Any]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30, env=env)
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        stderr = (getattr(error, "stderr", "") or "").strip()[-200:]
        raise PeerError(f"the load generator failed: {type(error).__name__} {stderr}") from error
