"""Measure what clients add to a call: their CPU time for one request, in turn, against the same service.

    python -m benchmarks.clients [--bundles bundles] [--rounds 5] [--calls 1000]

`httpx` sends a body that is ready and reads no more than the bytes of the answer; the others write the body and read
the answer, so that the difference is what they do for it.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ekiben.client import AsyncClient, Client
from ekiben.client.tensors import write_request
from tests.e2e.serving import ROOT, environment, serving
from tests.service.hosts import GRANIAN

MODEL = "mnist-cnn"
PATH = f"/v2/models/{MODEL}/infer"
INPUTS = {"images": np.random.default_rng(0).integers(0, 256, (1, 28, 28), np.uint8)}
Measured = Callable[[int], None]


def methods(url: str) -> dict[str, Measured]:
    """Each runs so many calls of the same inference."""
    body, headers = write_request(INPUTS, None)
    http, client = httpx.Client(base_url=url), Client(url)

    def bare() -> None:
        assert http.post(PATH, content=body, headers=headers).status_code == 200

    found = {"httpx": repeat(bare), "ekiben Client": repeat(lambda: client.infer(MODEL, INPUTS))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tritonclient.http as triton  # noqa: PLC0415 - it warns when it is imported
    nvidia = triton.InferenceServerClient(url.removeprefix("http://"))

    def infer() -> None:
        tensor = triton.InferInput("images", INPUTS["images"].shape, "UINT8")
        tensor.set_data_from_numpy(INPUTS["images"])
        nvidia.infer(MODEL, [tensor]).as_numpy("probabilities")

    found["tritonclient"] = repeat(infer)
    found["httpx, asyncio"] = repeat_async(
        lambda: httpx.AsyncClient(base_url=url), lambda c: c.post(PATH, content=body, headers=headers)
    )
    found["ekiben AsyncClient"] = repeat_async(lambda: AsyncClient(url), lambda c: c.infer(MODEL, INPUTS))
    return found


def repeat(call: Callable[[], object]) -> Measured:
    def run(count: int) -> None:
        for _ in range(count):
            call()

    return run


def repeat_async(make_client: Callable[[], Any], call: Callable[[Any], Awaitable[object]]) -> Measured:
    async def main(count: int) -> None:
        async with make_client() as client:
            for _ in range(count):
                await call(client)

    return lambda count: asyncio.run(main(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        env = environment(EKIBEN_BUNDLES=str(args.bundles.resolve()), BENTOML_HOME=folder)
        with serving(GRANIAN, env=env, cwd=ROOT, log=Path(folder) / "log") as url:
            measured = methods(url)
            times: dict[str, list[float]] = {name: [] for name in measured}
            for _ in range(args.rounds):
                for name, run in measured.items():
                    run(args.calls // 10)
                    begin = time.process_time()
                    run(args.calls)
                    times[name].append((time.process_time() - begin) / args.calls * 1e6)
    print(f"| client | CPU time of a call, median of {args.rounds} rounds | least |\n| --- | --- | --- |")
    for name, values in times.items():
        print(f"| {name} | {statistics.median(values):.0f} µs | {min(values):.0f} µs |")


if __name__ == "__main__":
    main()
