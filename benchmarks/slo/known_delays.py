"""Check the benchmark itself: a server with known delays, and one that stalls for a second.

    python -m benchmarks.slo.known_delays [--seconds 10]

The reported mean is compared with the delay. The stall comes once, in the middle; at a constant rate of requests it is
a tenth of a run of ten seconds, so the 99th percentile has to show it.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ekiben.bench.runs import Run, Scenario, Target, measure
from ekiben.bench.samples import load_samples

DELAYS_MS = (20, 50, 100, 200)
RATE = 100


@contextmanager
def delayed_server(**options: float) -> Iterator[str]:
    """A server with these options, in a process of its own; yields its address."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "benchmarks.slo.delayed_server", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def _measure(url: str, scenario: Scenario, seconds: float) -> Run:
    target = Target(url=url, samples=load_samples(url, "delayed", headers={}))
    return measure(target, scenario, seconds=seconds, rate=RATE, p99_ms=1e4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    print("| server | scenario | mean, ms | off by | p99, ms |\n| --- | --- | ---: | ---: | ---: |")
    for delay_ms in DELAYS_MS:
        with delayed_server(delay_ms=delay_ms) as url:
            for scenario in (Scenario.SINGLE_STREAM, Scenario.SERVER):
                run = _measure(url, scenario, args.seconds)
                off = run.mean_ms / delay_ms - 1
                p99_ms = run.latency_ms["99.00"]
                print(f"| delay of {delay_ms} ms | {scenario} | {run.mean_ms:.2f} | {off:+.1%} | {p99_ms:.2f} |")
    with delayed_server(delay_ms=5, stall_after=round(RATE * args.seconds / 2), stall_s=1) as url:
        run = _measure(url, Scenario.SERVER, args.seconds)
        print(f"| 5 ms, stalls once for 1 s | server | {run.mean_ms:.2f} | | {run.latency_ms['99.00']:.2f} |")


if __name__ == "__main__":
    main()
