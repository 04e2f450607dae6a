"""Connect to streams and disconnect at random moments, on both hosts: count what is left behind.

    python -m benchmarks.generate.disconnects [--bundles bundles] [--clients 1000] [--seed 1]

Clients ask for long texts at every route of generation and close their connection within the request, before the first
event or in the midst of the stream. `left` is what the host still has after that. `last steps` are those that
were decoded between the moment before the last clients closed their connections and the last step, a text running then.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from tests.e2e.serving import ROOT, SERVE, ServerProcess, environment, start
from tests.service.hosts import GRANIAN, counted, send, wait_until

MODEL = "text-transformer"
FIELDS = {"max_tokens": 200, "temperature": 1.0}
PROMPTS = ["The import statement ", "A list ", "The "]
BODIES = {
    "/generate": {"model": MODEL, "prompt": PROMPTS, **FIELDS},
    "/generate/stream": {"model": MODEL, "prompt": PROMPTS, **FIELDS},
    "/v1/completions": {"model": MODEL, "prompt": PROMPTS, "stream": True, **FIELDS},
    f"/v2/models/{MODEL}/generate_stream": {"text_input": "The ", "parameters": FIELDS},
}
NUM_OPEN = 12


def main() -> None:
    parser = argparse.ArgumentParser(description="Connect to streams and disconnect at random moments.")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print("| host | clients | left: requests | texts | descriptors | threads | last steps a text | MB before, after |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, command in (("granian", GRANIAN), ("bentoml", SERVE)):
        with tempfile.TemporaryDirectory() as folder:
            env = environment(EKIBEN_BUNDLES=str(args.bundles.resolve()), EKIBEN_READY_WHEN=MODEL, BENTOML_HOME=folder)
            with start(command, env=env, cwd=ROOT, log=Path(folder) / "log") as host:
                print(f"| {name} | {args.clients} | {measure(host, args.clients, args.seed)} |")
                sys.stdout.flush()


def measure(host: ServerProcess, num_clients: int, seed: int) -> str:
    rng = random.Random(seed)
    disconnect(host.port, rng, 100)  # pools of threads and of memory are filled
    settle(host)
    before = resources(host)
    more_steps = disconnect(host.port, rng, num_clients, host)
    settle(host)
    after = resources(host)
    left = [after[i] - before[i] for i in range(2)]
    running = counted(host, "ekiben_num_requests_running")
    waiting = counted(host, "ekiben_http_in_flight")
    return (
        f"{waiting:g} | {running:g} | {left[0]} | {left[1]} | {more_steps:.2f} | "
        f"{before[2] / 1e6:.0f}, {after[2] / 1e6:.0f}"
    )


def disconnect(port: int, rng: random.Random, num_clients: int, host: ServerProcess | None = None) -> float:
    """Return the steps a text after the last clients had gone."""
    clients = []
    for _ in range(num_clients):
        path, body = rng.choice(list(BODIES.items()))
        content = json.dumps({**body, **({} if "v2" in path else {"seed": rng.randrange(1000)})}).encode()
        is_whole = rng.random() < 0.9
        clients.append(send(port, path, len(content), content if is_whole else content[: rng.randrange(len(content))]))
        if is_whole and "stream" in f"{path}{body}" and rng.random() < 0.7:
            clients[-1].recv(rng.choice([1, 100, 1000, 10_000]))
        time.sleep(rng.random() * 0.01)
        if len(clients) == NUM_OPEN:
            clients.pop(rng.randrange(NUM_OPEN)).close()
    running = 0.0 if host is None else counted(host, "ekiben_num_requests_running")
    for client in clients:
        client.close()
    if host is None:
        return 0.0
    at_disconnect = counted(host, "ekiben_generation_tokens")
    settle(host)
    return (counted(host, "ekiben_generation_tokens") - at_disconnect) / max(running, 1)


def settle(host: ServerProcess) -> None:
    wait_until(lambda: counted(host, "ekiben_http_in_flight") == 0 == counted(host, "ekiben_num_requests_running"))
    assert httpx.get(f"{host.address}/readyz").status_code == 200
    time.sleep(1)


def resources(host: ServerProcess) -> tuple[int, int, int]:
    """Return the descriptors, threads and bytes of memory of all processes of the host."""
    process = psutil.Process(host.process.pid)
    processes = [process, *process.children(recursive=True)]
    return (
        sum(member.num_fds() for member in processes),
        sum(member.num_threads() for member in processes),
        sum(member.memory_info().rss for member in processes),
    )


if __name__ == "__main__":
    main()
