"""Compare the responses of a server with the outputs of onnxruntime, under concurrency, before the server is timed."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np

from benchmarks.peers.bodies import WireFormat
from benchmarks.peers.processes import PeerError, Server
from benchmarks.peers.registry import Peer
from benchmarks.peers.workloads import NUM_ITEMS, Workload

ATOL = 1e-4
NUM_REQUESTS = 96
READY_TIMEOUT_S = 180.0
ANSWER_TIMEOUT_S = 120.0  # large models answer 16 requests at once slowly


def wait_until_ready(server: Server, workload: Workload, formats: list[WireFormat]) -> None:
    """Wait until one format is answered, then up to three seconds more for the others; `check` reports each failure."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    unanswered = list(formats)
    last_response = "no connection"
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as client:
        while unanswered and time.monotonic() < deadline:
            if not server.is_running():
                raise PeerError(f"exited while starting: {server.last_log_line()}")
            for wire_format in list(unanswered):
                request = wire_format.encode(workload, slice(0, 1))
                try:
                    status = client.post(request.path, content=request.body, headers=request.headers).status_code
                except httpx.TransportError:
                    break
                last_response = f"status {status}"
                if status == 200:
                    unanswered.remove(wire_format)
                    deadline = min(deadline, time.monotonic() + 3)
            time.sleep(0.2)
    if len(unanswered) == len(formats):
        raise PeerError(f"not ready within {READY_TIMEOUT_S:.0f} s: {last_response}; {server.last_log_line()}")


def check(server: Server, peer: Peer, workload: Workload, wire_format: WireFormat) -> float:
    """The largest difference over requests of 1 to 4 different rows and one of the most rows, sent from 16 threads."""
    rng = np.random.default_rng(1)
    sizes = [*rng.integers(1, 5, NUM_REQUESTS), workload.max_rows]
    starts = [int(rng.integers(0, NUM_ITEMS - size + 1)) for size in sizes]
    items = [slice(start, start + int(size)) for start, size in zip(starts, sizes, strict=True)]
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=ANSWER_TIMEOUT_S) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        return max(pool.map(lambda rows: _difference(client, peer, workload, wire_format, rows), items))


def _difference(client: httpx.Client, peer: Peer, workload: Workload, wire_format: WireFormat, items: slice) -> float:
    request = wire_format.encode(workload, items)
    try:
        response = client.post(request.path, content=request.body, headers=request.headers)
    except httpx.TransportError as error:
        raise PeerError(f"{request.path}: no answer: {type(error).__name__} {error}") from error
    if response.status_code != 200:
        raise PeerError(f"{request.path}: status {response.status_code}: {response.text[:120]}")
    if peer.check == "status":
        return 0.0
    expected = workload.probabilities[items]
    if wire_format.top:
        expected = -np.sort(-expected, axis=1)[:, : wire_format.top]
    try:
        probabilities = wire_format.decode(response.headers, response.content).reshape(expected.shape)
    except (ValueError, KeyError, TypeError) as error:
        raise PeerError(f"{request.path}: the response cannot be decoded: {error}") from error
    difference = float(np.abs(probabilities - expected).max())
    if not difference <= ATOL:
        raise PeerError(
            f"{request.path}: the probabilities differ by {difference:.2g} from onnxruntime (at most {ATOL:g})"
        )
    return difference
