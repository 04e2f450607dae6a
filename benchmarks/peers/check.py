"""Before a server is timed, its answers are compared with onnxruntime's: for each form, alone and under concurrency."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np

from benchmarks.peers.bodies import Form
from benchmarks.peers.processes import PeerError, Server
from benchmarks.peers.registry import Peer
from benchmarks.peers.workloads import NUM_ITEMS, Workload

ATOL = 1e-4
NUM_REQUESTS = 96
READY_WITHIN_S = 180.0


def wait_until_ready(server: Server, workload: Workload, forms: list[Form]) -> None:
    """Until a form is answered; three more seconds for the others, which the check then reports one by one."""
    deadline = time.monotonic() + READY_WITHIN_S
    unanswered = list(forms)
    reply = "no connection"
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as client:
        while unanswered and time.monotonic() < deadline:
            if not server.is_running():
                raise PeerError(f"ended while starting: {server.last_words()}")
            for form in list(unanswered):
                exchange = form.encode(workload, slice(0, 1))
                try:
                    status = client.post(exchange.path, content=exchange.body, headers=exchange.headers).status_code
                except httpx.TransportError:
                    break
                reply = f"status {status}"
                if status == 200:
                    unanswered.remove(form)
                    deadline = min(deadline, time.monotonic() + 3)
            time.sleep(0.2)
    if len(unanswered) == len(forms):
        raise PeerError(f"not ready within {READY_WITHIN_S:.0f} s: {reply}; {server.last_words()}")


def check(server: Server, peer: Peer, workload: Workload, form: Form) -> float:
    """The worst difference over requests of 1 to 4 different rows from 16 threads, and one of 32 rows."""
    rng = np.random.default_rng(1)
    sizes = [*rng.integers(1, 5, NUM_REQUESTS), 32]
    starts = [int(rng.integers(0, NUM_ITEMS - size + 1)) for size in sizes]
    items = [slice(start, start + int(size)) for start, size in zip(starts, sizes, strict=True)]
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client, ThreadPoolExecutor(16) as pool:
        return max(pool.map(lambda rows: _difference(client, peer, workload, form, rows), items))


def _difference(client: httpx.Client, peer: Peer, workload: Workload, form: Form, items: slice) -> float:
    exchange = form.encode(workload, items)
    reply = client.post(exchange.path, content=exchange.body, headers=exchange.headers)
    if reply.status_code != 200:
        raise PeerError(f"{exchange.path} answered {reply.status_code}: {reply.text[:120]}")
    if peer.check == "status":
        return 0.0
    expected = workload.probabilities[items]
    if form.top:
        expected = -np.sort(-expected, axis=1)[:, : form.top]
    try:
        served = form.decode(reply.headers, reply.content).reshape(expected.shape)
    except (ValueError, KeyError, TypeError) as error:
        raise PeerError(f"{exchange.path} gave an answer that cannot be read: {error}") from error
    difference = float(np.abs(served - expected).max())
    if not difference <= ATOL:
        raise PeerError(f"{exchange.path} is wrong: off by {difference:.2g} from onnxruntime")
    return difference
