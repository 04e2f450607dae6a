"""What clients cost that hold a connection and do not finish: unfinished heads and bodies that are held back.

    python -m benchmarks.http.connections [--bundles bundles] [--heads 8500] [--bodies 60]

For each host: the memory of its processes before and at the worst moment, the slowest of ten /livez on new connections
meanwhile, and how many connections the service closed or refused. A body has 16 MiB, of which all but the last byte are
sent, with its length declared or in one chunk. One client does it all, so one client's limits apply.
"""

import argparse
import http.client
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests.e2e.serving import ROOT, SERVE, ServerProcess, environment, start

HOSTS = {"python -m service": (sys.executable, "-m", "service"), "bentoml serve": SERVE}
BODY_BYTES = 16 << 20
PATH = b"/v2/models/mnist-cnn/infer"
HEAD = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" % PATH


def memory_bytes(host: ServerProcess) -> int:
    process = psutil.Process(host.process.pid)
    return sum(member.memory_info().rss for member in (process, *process.children(recursive=True)))


def livez_s(port: int) -> float:
    """The slowest of ten probes, each on a new connection."""
    slowest = 0.0
    for _ in range(10):
        started_at = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        connection.close()
        slowest = max(slowest, time.perf_counter() - started_at)
    return slowest


def send_head(client: socket.socket) -> None:
    client.sendall(HEAD + b"x: ")


def send_declared(client: socket.socket) -> None:
    client.sendall(HEAD + b"content-length: %d\r\n\r\n" % BODY_BYTES + bytes(BODY_BYTES - 1))


def send_chunk(client: socket.socket) -> None:
    client.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % BODY_BYTES + bytes(BODY_BYTES - 1))


def is_open(client: socket.socket) -> bool:
    """Whether the service has neither answered nor closed the connection."""
    client.setblocking(False)
    try:
        client.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def measure(host: ServerProcess, send: Callable[[socket.socket], None], num_clients: int) -> str:
    before = worst = memory_bytes(host)
    clients, num_refused = [], 0
    with ExitStack() as stack:
        for i in range(num_clients):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", host.port), timeout=10))
            try:
                send(client)
                clients.append(client)
            except OSError:  # it was refused before it was sent
                num_refused += 1
            if i % 100 == 0 or num_clients < 100:
                worst = max(worst, memory_bytes(host))
        probe_s = livez_s(host.port)
        time.sleep(2)
        worst = max(worst, memory_bytes(host))
        num_refused += sum(not is_open(client) for client in clients)
    time.sleep(2)
    return f"{before >> 20} | {(worst - before) >> 20} | {probe_s * 1e3:.0f} | {num_refused}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--heads", type=int, default=8500)
    parser.add_argument("--bodies", type=int, default=60)
    args = parser.parse_args()
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    cases = (
        ("heads", send_head, args.heads),
        ("bodies", send_declared, args.bodies),
        ("chunks", send_chunk, args.bodies),
    )
    print(
        "| host | held | MiB before | MiB more | /livez ms | closed or refused |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, command in HOSTS.items():
        with tempfile.TemporaryDirectory() as folder:
            env = environment(EKIBEN_BUNDLES=str(args.bundles.absolute()), BENTOML_HOME=folder)
            with start(command, env=env, cwd=ROOT, log=Path(folder) / "log") as host:
                for held, send, number in cases:
                    print(f"| `{name}` | {number:,} {held} | {measure(host, send, number)} |", flush=True)


if __name__ == "__main__":
    main()
