"""A lower bound of the cost: a minimal handler around onnxruntime on granian's native interface (RSGI), with orjson."""

import os
import sys

import orjson

from benchmarks.peers.servers.model import HOST, PORT, WORKERS, load

JSON = [("content-type", "application/json")]
BINARY = [("content-type", "application/octet-stream")]
models = load() if __name__ != "__main__" else {}


async def app(scope, protocol):
    content = await protocol()
    model = models[scope.path[1:]]
    if scope.headers["content-type"] == "application/json":
        output = model.run(model.from_json(orjson.loads(content)))
        body = orjson.dumps({"probabilities": output}, option=orjson.OPT_SERIALIZE_NUMPY)
        protocol.response_bytes(200, JSON, body)
    else:
        protocol.response_bytes(200, BINARY, model.run(model.from_bytes(content)).tobytes())


if __name__ == "__main__":
    address = ["--host", HOST, "--port", str(PORT), "--workers", str(WORKERS)]
    command = ["-m", "granian", "--interface", "rsgi", "--loop", "uvloop", "--log-level", "warning", *address]
    os.execv(sys.executable, [sys.executable, *command, f"{__spec__.name}:app"])
