"""TorchServe with its batching. Its front end needs Java 17. It takes a batch delay of 0 for its default of 100 ms."""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.servers.model import FILES, HOME, HOST, PORT, WORKERS, Model, free_port

BATCH_DELAY_MS = 1


class Peer:
    def initialize(self, context) -> None:
        self.model = Model(FILES[context.manifest["model"]["modelName"]])

    def handle(self, requests, _context):
        bodies = [request["body"] for request in requests]
        feeds = [
            self.model.from_json(body) if isinstance(body, dict) else self.model.from_bytes(body) for body in bodies
        ]
        outputs = zip(bodies, self.model.run_many(feeds), strict=True)
        return [
            json.dumps({"probabilities": output.tolist()}) if isinstance(body, dict) else output.tobytes()
            for body, output in outputs
        ]


HANDLER = """
from benchmarks.peers.servers.torchserve import Peer

peer = None


def handle(data, context):
    global peer
    if peer is None:
        peer = Peer()
        peer.initialize(context)
    return peer.handle(data, context) if data else None
"""


def config() -> str:
    workers = {"minWorkers": WORKERS, "maxWorkers": WORKERS, "batchSize": 64, "maxBatchDelay": BATCH_DELAY_MS}
    models = {name: {"1.0": {"marName": f"{name}.mar", "defaultVersion": True, **workers}} for name in FILES}
    lines = {
        "inference_address": f"http://{HOST}:{PORT}",
        "management_address": f"http://{HOST}:{free_port()}",
        "metrics_address": f"http://{HOST}:{free_port()}",
        "grpc_inference_port": free_port(),
        "grpc_management_port": free_port(),
        "job_queue_size": 1000,
        "disable_token_authorization": "true",
        "load_models": "all",
        "models": json.dumps(models),
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


if __name__ == "__main__":
    programs = Path(sys.executable).parent
    os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    os.environ["LOG_LOCATION"] = os.environ["METRICS_LOCATION"] = str(HOME)
    (HOME / "handler.py").write_text(HANDLER)
    (HOME / "config.properties").write_text(config())
    for name in FILES:
        archive = ["--model-name", name, "--version", "1.0", "--handler", "handler.py", "--export-path", str(HOME)]
        subprocess.run([programs / "torch-model-archiver", *archive], cwd=HOME, check=True)
    os.chdir(HOME)
    start = ["--start", "--foreground", "--model-store", str(HOME), "--ts-config", "config.properties", "--ncs"]
    os.execv(programs / "torchserve", ["torchserve", *start, "--disable-token-auth"])
