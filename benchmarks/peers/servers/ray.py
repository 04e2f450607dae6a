"""Ray Serve behind its HAProxy ingress, with its batching (variant "batch") or one request at a time."""

import json
import signal
import sys

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.peers.servers.model import FILES, HOME, HOST, PORT, VARIANT, WORKERS, Model


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0})
class Peer:
    def __init__(self, path: str) -> None:
        self.model = Model(path)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def batched(self, requests):
        return self.model.run_many(requests)

    async def __call__(self, request: Request) -> Response:
        content, is_json = await request.body(), request.headers["content-type"] == "application/json"
        feeds = self.model.from_json(json.loads(content)) if is_json else self.model.from_bytes(content)
        answer = await self.batched(feeds) if VARIANT == "batch" else self.model.run(feeds)
        if is_json:
            return Response(json.dumps({"probabilities": answer.tolist()}), media_type="application/json")
        return Response(answer.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        _node_ip_address=HOST,
        _temp_dir=str(HOME),
        log_to_driver=False,
        object_store_memory=200 << 20,
    )
    logging = {"enable_access_log": False, "log_level": "WARNING"}
    serve.start(http_options={"host": HOST, "port": PORT}, logging_config=logging)
    for name, path in FILES.items():
        serve.run(Peer.bind(path), name=name, route_prefix=f"/{name}", logging_config=logging)
    try:
        signal.pause()
    finally:
        serve.shutdown()
        ray.shutdown()
