"""Twice as many requests as the service can answer, for a minute, whether or not it keeps up.

    python -m benchmarks.engine.overload [--bundles bundles] [--workload heavy light] [--workers 1 2] [--seconds 60]

Over HTTP against `python -m service`, binary tensors, from a process of its own (`benchmarks.engine.generator`). The
peak is measured first, with clients who ask again as soon as they are answered, the best of a few numbers of them. Then
requests come by a Poisson process at twice that rate (an open loop: a slow answer does not slow the next request down),
all with the same deadline. A share of those who are refused obeys: it asks the same again when it was told to. The
peak is measured again at the end, because a machine's speed changes within minutes: what is reported is a share of the
mean of both, with the number of clients for which that is best.

Clients are never on the machine that serves them, so where there are more cores than workers the generator has the last
one to itself and the service the others, for the peak as for the overload; else, or with `--shared`, they share them.
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
    """What is asked, and by how many clients at a time when the peak is measured."""

    model: str
    rows: int
    deadline_ms: int
    clients: tuple[int, ...]
    steps: int = 0  # of each row, where the model has any


WORKLOADS = {
    "heavy": Workload(model="cifar10-cnn", rows=8, deadline_ms=200, clients=(16, 64)),  # 25 KB, 0.7 ms of computing
    "long": Workload(model="news-attention-dot", rows=8, steps=512, deadline_ms=200, clients=(8, 32)),  # 33 KB, 2.6 ms
    "light": Workload(model="mnist-cnn", rows=1, deadline_ms=200, clients=(32, 128)),  # 1 KB, 0.02 ms
}
DATATYPES = {"uint8": "UINT8", "int64": "INT64"}


@dataclass(frozen=True, kw_only=True)
class Result:
    workload: str
    workers: int
    service_on: list[int]  # cores
    generator_on: list[int]
    seconds: float
    peaks_per_s: dict[int, list[float]]  # by number of clients, before and after
    peak_per_s: float
    offered_of_peak: float
    goodput_of_peak: float
    accepted: int
    in_time: float
    refused: int
    refusal_ms: dict[str, float]
    answer_ms: dict[str, float]
    returned: int
    returned_accepted: float
    retry_after_s: dict[str, int]
    failures: dict[str, int]
    sent_late_ms: dict[str, float]
    connections: int
    generator_cores: float
    service_cores: float
    rss_mib: list[float]  # each second
    rss_growth: float  # of the last fifth over the fifth after the warm-up


def request(bundles: Path, workload: Workload) -> tuple[bytes, int]:
    """The bytes of a request, and where the eight digits are that make it another."""
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


class Watch(threading.Thread):
    """Memory of the service, all its processes together, each second."""

    def __init__(self, root: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.rss_mib: list[float] = []
        self._processes = [root, *root.children(recursive=True)]
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(1.0):
            self.rss_mib.append(round(sum(process.memory_info().rss for process in self._processes) / 2**20, 1))

    def end(self) -> None:
        self._ended.set()
        self.join()

    def cpu_s(self) -> float:
        return cpu_s(self._processes)


def measure(
    name: str, workers: int, args: argparse.Namespace, *, checkout: Path = ROOT, python: str = sys.executable
) -> Result:
    workload = WORKLOADS[name]
    template, number_at = request(args.bundles, workload)
    service_on, generator_on = split_cores(workers, shared=args.shared)
    with serve(args.bundles, workers, service_on, checkout=checkout, python=python) as (process, port):

        def asked(deadline_ms: int, **more: Any) -> dict[str, Any]:
            content = template.replace(b"%d", b"%d" % deadline_ms, 1)
            load = {
                "host": HOST,
                "port": port,
                "request": content.decode("latin-1"),
                "number_at": number_at + len(content) - len(template),
                "deadline_s": deadline_ms / 1e3,
                "seed": 0,
                **more,
            }
            return generate(load, generator_on)

        peaks: dict[int, list[float]] = {clients: [] for clients in workload.clients}

        def measure_peaks() -> None:
            for clients, found in peaks.items():
                found.append(float(asked(10_000, clients=clients, seconds=args.seconds / 12, obey=0)["good_per_s"]))

        asked(10_000, clients=workload.clients[0], seconds=args.seconds / 30, obey=0)
        measure_peaks()
        watch = Watch(process)
        watch.start()
        began, cpu_began = time.monotonic(), watch.cpu_s()
        rate = args.times * max(before for (before,) in peaks.values())
        found = asked(workload.deadline_ms, rate=rate, seconds=args.seconds, warm_up_s=args.seconds / 6, obey=args.obey)
        cores = (watch.cpu_s() - cpu_began) / (time.monotonic() - began)
        watch.end()
        measure_peaks()
    peak = max(sum(found) / len(found) for found in peaks.values())
    statuses = dict(found["statuses"])
    good, refused = statuses.pop("200", 0), statuses.pop("503", 0)
    late = statuses.pop("504", 0) + statuses.pop("200 late", 0)
    warm = watch.rss_mib[int(args.seconds / 6) :]
    fifth = max(len(warm) // 5, 1)
    returned = sum(found["returned"].values())
    return Result(
        workload=f"{name}: {workload.model}, {workload.rows} rows, {workload.deadline_ms} ms",
        workers=workers,
        service_on=service_on,
        generator_on=generator_on,
        seconds=args.seconds,
        peaks_per_s={clients: [round(each, 1) for each in found] for clients, found in peaks.items()},
        peak_per_s=round(peak, 1),
        offered_of_peak=round(found["sent"] / args.seconds / peak, 3),
        goodput_of_peak=round(found["good_per_s"] / peak, 4),
        accepted=good + late,
        in_time=round(good / max(good + late, 1), 5),
        refused=refused,
        returned=returned,
        returned_accepted=round(1 - found["returned"].get("503", 0) / max(returned, 1), 4),
        failures=statuses,
        service_cores=round(cores, 3),
        rss_mib=watch.rss_mib,
        rss_growth=round(float(np.mean(warm[-fifth:]) / np.mean(warm[:fifth])) - 1, 5),
        **{
            key: found[key]
            for key in ("refusal_ms", "answer_ms", "retry_after_s", "sent_late_ms", "connections", "generator_cores")
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=float, default=2, help="of the peak")
    parser.add_argument("--obey", type=float, default=0.02, help="share of the refused who come back as told")
    parser.add_argument("--shared", action="store_true", help="the generator shares the cores of the service")
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
