"""Clients that disconnect at random moments of a stream."""

import json
import random

import psutil

from tests.e2e.serving import ServerProcess
from tests.service.bundles import NAMES
from tests.service.hosts import send

PROMPTS = {"model": NAMES["language-model"], "prompt": ["the "] * 3, "max_tokens": 150, "seed": 1}
BODIES = {
    "/generate/stream": PROMPTS,
    "/generate": PROMPTS,
    "/v1/completions": {**PROMPTS, "stream": True},
    "/v2/models/tiny-letters/generate_stream": {"text_input": "the ", "parameters": {"max_tokens": 150}},
    "/v1/chat/completions": {
        "model": "tiny-chat", "messages": [{"role": "user", "content": "b"}], "stream": True, "max_tokens": 150
    },
}  # fmt: skip


def disconnect_at_random(port: int, *, num_clients: int, seed: int, num_open: int = 8) -> None:
    """Open streams, at most `num_open` at once; each is closed within its request, at its start or in its midst."""
    rng = random.Random(seed)
    clients = []
    for _ in range(num_clients):
        path, body = rng.choice(list(BODIES.items()))
        content = json.dumps(body).encode()
        if rng.random() < 0.1:
            clients.append(send(port, path, len(content), content[: rng.randrange(len(content))]))
        else:
            clients.append(send(port, path, len(content), content))
            if rng.random() < 0.7:
                clients[-1].recv(rng.choice([1, 100, 2000]))
        if len(clients) == num_open:
            clients.pop(rng.randrange(num_open)).close()
    for client in clients:
        client.close()


def num_descriptors(server: ServerProcess) -> int:
    """The open files and sockets of all processes of a server."""
    process = psutil.Process(server.process.pid)
    return sum(member.num_fds() for member in (process, *process.children(recursive=True)))
