"""Offer the service twice as many requests as it can answer, in an open loop.

    python -m benchmarks.engine.overload [--bundles bundles] [--workload heavy light] [--workers 1 2] [--seconds 60]

The requests carry binary tensors over HTTP to `python -m service`, from a separate process
(`benchmarks.engine.generator`). The peak is measured first, in a closed loop with several numbers of clients. Then
requests arrive by a Poisson process at twice the peak, all with the same deadline; a slow response does not slow the
next request down. A share of the refused requests is retried after the time given by Retry-After. The peak is measured
again at the end, because the speed of a machine changes within minutes. Goodput is reported as a share of the mean of
both measurements, for the number of clients with the highest mean.

In production, clients do not run on the machine of the service. Where there are more cores than workers, the generator
therefore has the last core to itself, for the peak as for the overload; otherwise, or with `--share-cores`, generator
and service share all cores.
"""

import argparse
import json
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.engine.server import HOST, ROOT, cpu_s, generate, serve, split_cores
from service.bundle import current_version, open_bundle


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One kind of request, and the numbers of clients with which its peak is measured.

    `steps` is the length of each row of a model that takes sequences.
    """

    model: str
    rows: int
    deadline_ms: int
    num_clients: tuple[int, ...]
    steps: int = 0


# Body size and compute time of a request: heavy 25 KB and 0.7 ms, long 33 KB and 2.6 ms, light 1 KB and 0.02 ms.
WORKLOADS = {
    "heavy": Workload(model="cifar10-cnn", rows=8, deadline_ms=200, num_clients=(16, 64)),
    "long": Workload(model="news-attention-dot", rows=8, steps=512, deadline_ms=200, num_clients=(8, 32)),
    "light": Workload(model="mnist-cnn", rows=1, deadline_ms=200, num_clients=(32, 128)),
}
DATATYPES = {"uint8": "UINT8", "int64": "INT64"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """`peaks_per_s` has, by number of clients, the peak before and after the overload; `rss_mib` one value per second.

    `rss_growth` compares the last fifth of the overload with the fifth after the warm-up. `generator_cpu` and
    `service_cpu` are CPU seconds per second.
    """

    workload: str
    workers: int
    service_cores: list[int]
    generator_cores: list[int]
    seconds: float
    peaks_per_s: dict[int, list[float]]
    peak_per_s: float
    offered_of_peak: float
    goodput_of_peak: float
    accepted: int
    accepted_in_time: float
    refused: int
    refusal_ms: dict[str, float]
    response_ms: dict[str, float]
    retried: int
    retried_accepted: float
    retry_after_s: dict[str, int]
    failures: dict[str, int]
    send_delay_ms: dict[str, float]
    num_connections: int
    generator_cpu: float
    service_cpu: float
    rss_mib: list[float]
    rss_growth: float


def request(bundles: Path, workload: Workload) -> tuple[bytes, int]:
    """The bytes of a request, and the offset of the eight digits that make each request different."""
    folder = bundles / workload.model
    rng = np.random.default_rng(0)
    tensors, content = [], b""
    for spec in open_bundle(folder / current_version(folder)).manifest.inputs:
        shape = [{"batch": workload.rows, "steps": workload.steps}.get(str(size), size) for size in spec.shape]
        values = np.full(shape, workload.steps) if spec.name == "lengths" else rng.integers(1, 256, shape)
        data = values.astype(spec.dtype).tobytes()
        parameters = {"binary_data_size": len(data)}
        tensors.append({"name": spec.name, "shape": shape, "datatype": DATATYPES[spec.dtype], "parameters": parameters})
        content += data
    output = {"name": "probabilities", "parameters": {"binary_data": True}}
    document = json.dumps({"id": "0" * 8, "inputs": tensors, "outputs": [output]}, separators=(",", ":")).encode()
    head = (
        f"POST /v2/models/{workload.model}/infer HTTP/1.1\r\nHost: {HOST}\r\n"
        f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(document)}\r\n"
        f"Content-Length: {len(document) + len(content)}\r\nX-Request-Timeout-Ms: %d\r\n\r\n"
    )
    return head.encode() + document + content, len(head) + document.index(b"0" * 8)


class MemorySampler(threading.Thread):
    """Samples the resident memory of all processes of the service once a second."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        super().__init__(daemon=True)
        self.rss_mib: list[float] = []
        self._processes = processes
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(1.0):
            self.rss_mib.append(round(sum(process.memory_info().rss for process in self._processes) / 2**20, 1))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def measure(
    name: str, workers: int, args: argparse.Namespace, *, checkout: Path = ROOT, python: str = sys.executable
) -> Result:
    workload = WORKLOADS[name]
    template, number_offset = request(args.bundles, workload)
    service_cores, generator_cores = split_cores(workers, shared=args.share_cores)
    with serve(args.bundles, workers, service_cores, checkout=checkout, python=python) as (process, port):

        def run_load(deadline_ms: int, **parameters: Any) -> dict[str, Any]:
            content = template.replace(b"%d", b"%d" % deadline_ms, 1)
            load = {
                "host": HOST,
                "port": port,
                "request": content.decode("latin-1"),
                "number_offset": number_offset + len(content) - len(template),
                "deadline_s": deadline_ms / 1e3,
                "seed": 0,
                **parameters,
            }
            return generate(load, generator_cores)

        def run_closed_loop(num_clients: int, seconds: float) -> float:
            return float(run_load(10_000, num_clients=num_clients, seconds=seconds, retry_rate=0)["good_per_s"])

        peaks: dict[int, list[float]] = {num_clients: [] for num_clients in workload.num_clients}

        def measure_peaks() -> None:
            for num_clients, values in peaks.items():
                values.append(run_closed_loop(num_clients, args.seconds / 12))

        run_closed_loop(workload.num_clients[0], args.seconds / 30)
        measure_peaks()
        processes = [process, *process.children(recursive=True)]
        memory = MemorySampler(processes)
        memory.start()
        start, cpu_before_s = time.monotonic(), cpu_s(processes)
        found = run_load(
            workload.deadline_ms,
            rate=args.times * max(before for (before,) in peaks.values()),
            seconds=args.seconds,
            warm_up_s=args.seconds / 6,
            retry_rate=args.retry_rate,
        )
        service_cpu = (cpu_s(processes) - cpu_before_s) / (time.monotonic() - start)
        memory.stop()
        measure_peaks()
    peak = max(sum(values) / len(values) for values in peaks.values())
    statuses = dict(found["statuses"])
    good, refused = statuses.pop("200", 0), statuses.pop("503", 0)
    late = statuses.pop("504", 0) + statuses.pop("200 late", 0)
    after_warm_up = memory.rss_mib[int(args.seconds / 6) :]
    fifth = max(len(after_warm_up) // 5, 1)
    retried = sum(found["retry_statuses"].values())
    unchanged = ("refusal_ms", "response_ms", "retry_after_s", "send_delay_ms", "num_connections", "generator_cpu")
    return Result(
        workload=f"{name}: {workload.model}, {workload.rows} rows, {workload.deadline_ms} ms",
        workers=workers,
        service_cores=service_cores,
        generator_cores=generator_cores,
        seconds=args.seconds,
        peaks_per_s={num_clients: [round(each, 1) for each in values] for num_clients, values in peaks.items()},
        peak_per_s=round(peak, 1),
        offered_of_peak=round(found["num_sent"] / args.seconds / peak, 3),
        goodput_of_peak=round(found["good_per_s"] / peak, 4),
        accepted=good + late,
        accepted_in_time=round(good / max(good + late, 1), 5),
        refused=refused,
        retried=retried,
        retried_accepted=round(1 - found["retry_statuses"].get("503", 0) / max(retried, 1), 4),
        failures=statuses,
        service_cpu=round(service_cpu, 3),
        rss_mib=memory.rss_mib,
        rss_growth=round(float(np.mean(after_warm_up[-fifth:]) / np.mean(after_warm_up[:fifth])) - 1, 5),
        **{key: found[key] for key in unchanged},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=float, default=2, help="offered load as a multiple of the peak")
    parser.add_argument("--retry-rate", type=float, default=0.02, help="share of the refused requests that is retried")
    parser.add_argument("--share-cores", action="store_true", help="run the generator on the cores of the service")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("overload.json"))
    args = parser.parse_args()
    results = []
    for name in args.workload:
        for workers in args.workers:
            results.append(asdict(measure(name, workers, args)))
            for key, value in results[-1].items():
                print(f"{key:>20}  {value}")
            print(flush=True)
    args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
