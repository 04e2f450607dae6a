"""Are the tokens of a seeded request the same in any company, on any worker, after a restart and from the cache?

    python -m benchmarks.generate.company [--bundles bundles] [--model text-transformer] [--requests 200]

Every request is sent alone to one worker, then amid 64 others that begin and end at random, then to each of two workers
of another start. Prompts repeat, so that their beginnings come from the prefix cache. Text and log probabilities of all
answers must be equal, bit for bit; prints how many rows shared a step.
"""

import argparse
import asyncio
import random
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.connection import Connection
from benchmarks.engine.server import ROOT, serve, split_cores
from benchmarks.generate.client import post

COMPANY = 64
PROMPTS = ("The function ", "import os\n", "A class is an object that ", "If the argument is omitted, " * 3, "x")
METRICS = ("ekiben_decode_rows_total", "ekiben_decode_runs_total", "ekiben_prefix_cache_hits_total")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--model", default="text-transformer")
    parser.add_argument("--requests", type=int, default=200)
    args = parser.parse_args()
    bodies = make_bodies(args.model, args.requests)
    cores, _ = split_cores(2)
    with serve(args.bundles, 1, cores) as (_, port):
        expected = asyncio.run(send_all(port, bodies, at_once=1))
        check("a second time", expected, asyncio.run(send_all(port, bodies[::-1], at_once=1))[::-1])
        before = asyncio.run(read_metrics(port, args.model))
        check(f"amid {COMPANY} others", expected, asyncio.run(send_amid_others(port, bodies, args.model)))
        rows, runs, hits = (b - a for a, b in zip(before, asyncio.run(read_metrics(port, args.model)), strict=True))
    print(f"{rows / runs:.1f} rows a step in company; {hits:.0f} tokens of prompts came from the prefix cache")
    with serve(args.bundles, 2, cores) as (_, port):
        for attempt in range(2):
            answers = asyncio.run(send_all(port, bodies, at_once=8))
            check(f"after a restart with two workers, round {attempt + 1}", expected, answers)


def make_bodies(model: str, count: int) -> list[dict[str, Any]]:
    """Requests of every kind, the same in each run."""
    rng = random.Random(0)
    return [
        {
            "model": model, "prompt": rng.choice(PROMPTS), "max_tokens": rng.randint(1, 96), "seed": seed,
            "temperature": rng.choice([0.0, 0.7, 1.0, 1.5]), "top_k": rng.choice([0, 5, 40]),
            "top_p": rng.choice([1.0, 0.9]), "logprobs": True,
        }
        for seed in range(count)
    ]  # fmt: skip


async def send_all(port: int, bodies: list[dict[str, Any]], *, at_once: int) -> list[Any]:
    """Send the requests over so many connections, and return their completions in order."""
    answers: list[Any] = [None] * len(bodies)
    numbers = iter(range(len(bodies)))

    async def client() -> None:
        connection = await Connection.open(port)
        for number in numbers:
            answers[number] = (await post(connection, "/generate", bodies[number]))["completions"]
        connection.close()

    await asyncio.gather(*(client() for _ in range(at_once)))
    return answers


async def send_amid_others(port: int, bodies: list[dict[str, Any]], model: str) -> list[Any]:
    """Send the requests in random order while COMPANY others are generated all the time, and end at random moments."""
    rng, done = random.Random(1), asyncio.Event()

    async def other() -> None:
        while not done.is_set():
            connection = await Connection.open(port)
            body = {"model": model, "prompt": rng.choice(PROMPTS), "max_tokens": rng.randint(1, 120)}
            task = asyncio.create_task(post(connection, "/generate", body))
            await asyncio.wait([task], timeout=rng.choice([0.02, 0.2, 30.0]))
            task.cancel()
            connection.close()

    others = [asyncio.create_task(other()) for _ in range(COMPANY)]
    order = rng.sample(range(len(bodies)), len(bodies))
    answers = await send_all(port, [bodies[number] for number in order], at_once=8)
    done.set()
    await asyncio.gather(*others, return_exceptions=True)
    return [answer for _, answer in sorted(zip(order, answers, strict=True), key=lambda pair: pair[0])]


async def read_metrics(port: int, model: str) -> list[float]:
    connection = await Connection.open(port)
    text = (await connection.request("GET", "/metrics")).body.decode()
    connection.close()
    found = (re.search(rf'^{name}{{model="{model}",\S* (\S+)$', text, re.MULTILINE) for name in METRICS)
    return [float(match[1]) if match else 0.0 for match in found]


def check(title: str, expected: list[Any], answers: list[Any]) -> None:
    different = [i for i, (a, b) in enumerate(zip(expected, answers, strict=True)) if a != b]
    print(f"{title}: {len(expected) - len(different)} of {len(expected)} answers are equal")
    if different:
        sys.exit(f"request {different[0]}: {expected[different[0]]} and {answers[different[0]]}")


if __name__ == "__main__":
    main()
