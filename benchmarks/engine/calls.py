"""Answer requests inside this process, for `compare_calls`: from the router to the answer, without a socket.

    python -P benchmarks/engine/calls.py BUNDLES         in a checkout that has `service`, which is the one measured

Reads a request for work from each line of standard input, and prints the result of each as one line of JSON:

    {"add": name, "model": name, "path": ..., "headers": {...}, "body": base64, "as_tensors": bool}
                                               -> the answer, in base64
    {"run": name, "requests": n}               -> CPU time of a request in µs
    {"count": name}                            -> Python functions and functions of C that one request calls

With `as_tensors` the graph of the model is served by reader and head `tensors`. This file imports nothing else of the
benchmarks, because an earlier checkout has other ones.
"""

import asyncio
import base64
import gc
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvloop

from service.bundle import current_version, open_bundle
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.engine.sessions.model import Model, create_model
from service.engine.sessions.session import Session
from service.engine.verification.warmup import warm_up
from service.http.router import Router
from service.http.telemetry.request_metrics import RequestMetrics
from service.tuning import tune_gc

try:
    from service.http.body_budget import BodyBudget
except ImportError:  # a checkout from before there was one
    BodyBudget = None  # type: ignore[assignment,misc]


@dataclass(frozen=True)
class PostedRequest:
    scope: dict[str, Any]
    body: bytes


class Service:
    def __init__(self, bundles: Path) -> None:
        self._bundles = bundles
        self._models: dict[str, Model] = {}
        self._requests: dict[str, PostedRequest] = {}
        self.runner = Runner(threads=1, limits=Limits())
        state = SimpleNamespace(
            repository=SimpleNamespace(get=self._models.__getitem__),
            runner=self.runner,
            max_body_bytes=16 << 20,
            trusted_proxies=(),
            draining=False,
            closing=False,
            request_metrics=RequestMetrics(),
            multiprocess_metrics=None,
            bodies=BodyBudget(256 << 20, 16 << 20, ()) if BodyBudget is not None else None,
        )
        self._router = Router(None, state=lambda: state)  # type: ignore[arg-type]

    def add(self, asked: dict[str, Any]) -> None:
        name = asked["model"]
        if name not in self._models:
            self._models[name] = self._load(name, as_tensors=asked["as_tensors"])
            warm_up(self._models[name].session, self.runner)
        headers = [(key.lower().encode(), value.encode()) for key, value in asked["headers"].items()]
        body = base64.b64decode(asked["body"])
        headers += [(b"host", b"localhost"), (b"content-length", str(len(body)).encode())]
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "query_string": b"",
            "client": ("127.0.0.1", 1),
        }
        self._requests[asked["add"]] = PostedRequest({**scope, "headers": headers, "path": asked["path"]}, body)

    def _load(self, name: str, *, as_tensors: bool) -> Model:
        folder = self._bundles / name.removesuffix("-tensors")
        bundle = open_bundle(folder / current_version(folder))
        manifest = bundle.manifest
        if as_tensors:
            fields = manifest.model_dump(exclude={"version", "format_version"})
            fields |= {"name": name, "reader": {"kind": "tensors"}, "head": {"kind": "tensors"}}
            manifest = type(manifest).versioned(**fields)
        session = Session(bundle.model, manifest=manifest, device="cpu")
        model = create_model(bundle, session)
        return Model(
            manifest=manifest, session=session, tokenizer=model.tokenizer, max_inline_bytes=model.max_inline_bytes
        )

    async def answer(self, name: str) -> bytes:
        call = self._requests[name]
        messages = [{"type": "http.request", "body": call.body}]
        sent: list[Any] = []

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await asyncio.get_running_loop().create_future()  # a client that stays
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message)

        await self._router(call.scope, receive, send)
        if sent[0]["status"] != 200:
            raise SystemExit(f"{name}: status {sent[0]['status']}: {sent[1]['body']!r}")
        return bytes(sent[1]["body"])

    async def run(self, name: str, requests: int) -> float:
        """The CPU time of all threads, of a request in µs."""
        began = time.process_time()
        for _ in range(requests):
            await self.answer(name)
        return (time.process_time() - began) / requests * 1e6

    async def count(self, name: str) -> dict[str, int]:
        counts: Counter[str] = Counter()

        def count_call(frame: Any, event: str, value: Any) -> None:
            if event == "call":
                code = frame.f_code
                counts[f"{'/'.join(Path(code.co_filename).parts[-3:])}: {code.co_qualname}"] += 1
            elif event == "c_call":
                counts[f"C: {getattr(value, '__qualname__', value)}"] += 1

        sys.setprofile(count_call)
        try:
            await self.answer(name)
        finally:
            sys.setprofile(None)
        return counts


async def serve(bundles: Path) -> None:
    service = Service(bundles)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        result: Any
        if "add" in asked:
            service.add(asked)
            result = base64.b64encode(await service.answer(asked["add"])).decode()
            await service.run(asked["add"], 200)
            tune_gc()
        elif "run" in asked:
            gc.collect()
            result = await service.run(asked["run"], asked["requests"])
        else:
            result = await service.count(asked["count"])
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
