"""Measure what keys, scopes and limits cost a request: CPU time inside this process, from the router to the answer.

    python -m benchmarks.http.keys [--bundles bundles] [--rounds 5]

One binary item of mnist-cnn over the Open Inference Protocol is answered in short runs under each policy in turn. The
figure of a round is the fastest run of each policy; the difference to the policy without any check is of the same
round. `shared` limits are counted in memory that several workers share, under a lock of the kernel.
"""

import argparse
import base64
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

import uvloop

from benchmarks.engine.calls import Service
from benchmarks.peers.bodies import FORMATS
from benchmarks.peers.workloads import load_workload
from service.http.access.policy import OPEN, AccessPolicy, access_policy
from service.keys.key_file import digest_key, new_key
from service.settings import Settings

MODEL = "mnist-cnn"
NO_CHECK = "no check"


def policies(folder: Path) -> tuple[Mapping[str, AccessPolicy], dict[str, str]]:
    """The policies by name, and the keys that they accept by name."""
    keys = {name: new_key() for name in ("free", "rate", "both")}
    limits = {"free": "", "rate": " rate=1000000", "both": " rate=1000000 concurrency=1000"}
    path = folder / "keys"
    path.write_text(
        "".join(f"{name} sha256={digest_key(key).hex()} scopes=infer{limits[name]}\n" for name, key in keys.items())
    )
    path.chmod(0o600)
    one, shared = (access_policy(Settings(keys=path), place) for place in (None, folder))
    return {
        NO_CHECK: OPEN,
        "default: no keys, this machine": access_policy(Settings(), None),
        "free": one,
        "rate": one,
        "rate, shared": shared,
        "both": one,
        "both, shared": shared,
    }, keys  # fmt: skip


async def measure(bundles: Path, rounds: int, runs: int, requests: int) -> dict[str, list[float]]:
    """µs of CPU time of a request in each round, by policy."""
    service = Service(bundles)
    encoded = FORMATS["v2-binary"].encode(load_workload(bundles / MODEL), slice(0, 1))
    spent_us: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        by_name, keys = policies(Path(folder))
        for name in by_name:
            key = keys.get(name.partition(",")[0], new_key())
            headers = {**dict(encoded.headers), "host": "127.0.0.1:3000", "authorization": f"Bearer {key}"}
            body = base64.b64encode(encoded.body).decode()
            service.add(
                {
                    "add": name,
                    "model": MODEL,
                    "path": encoded.path,
                    "headers": headers,
                    "body": body,
                    "as_tensors": False,
                }
            )
            service._router.access = by_name[name]
            await service.run(name, 500)
        for _ in range(rounds):
            fastest = dict.fromkeys(by_name, float("inf"))
            for _ in range(runs):
                for name, policy in by_name.items():
                    service._router.access = policy
                    fastest[name] = min(fastest[name], await service.run(name, requests))
            for name, us in fastest.items():
                spent_us.setdefault(name, []).append(us)
    return spent_us


def table(spent_us: Mapping[str, list[float]]) -> str:
    lines = ["| policy | µs a request | more than without a check, µs: median | least | most |", "| --- " * 5 + "|"]
    for name, measured in spent_us.items():
        more = [us - base for us, base in zip(measured, spent_us[NO_CHECK], strict=True)]
        figures = (statistics.median(measured), statistics.median(more), min(more), max(more))
        lines.append(f"| {name} | {' | '.join(f'{us:.2f}' for us in figures)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=100, help="of each policy in a round")
    parser.add_argument("--requests", type=int, default=20, help="of a run")
    args = parser.parse_args()
    print(table(uvloop.run(measure(args.bundles, args.rounds, args.runs, args.requests))))


if __name__ == "__main__":
    main()
