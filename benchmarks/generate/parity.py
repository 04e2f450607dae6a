"""Are greedy tokens and log probabilities those of PyTorch's full forward pass, without cache, chunks or batch?

    python -m benchmarks.generate.parity [--runs runs] [--bundles bundles] [--model text-transformer]

50 prompts of the test text, of 1 to 15 tokens, are continued by 240 tokens, all in one company. PyTorch then computes
each whole text at once. Prints how many tokens are the most probable ones, and the largest difference of a log
probability.
"""

import argparse
import asyncio
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.engine.server import ROOT
from service.bundle import open_bundle
from service.engine.generation.events import GenerationParams
from service.engine.generation.sampler import Sampling
from service.engine.generation.stream import Completion, complete
from service.engine.runner import untimed_runner
from service.engine.sessions.session import Session
from training.checkpoint import load_run

NUM_PROMPTS, NUM_TOKENS = 50, 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--model", default="text-transformer")
    args = parser.parse_args()
    run, folder = load_run(args.runs / args.model), args.bundles / args.model
    bundle = open_bundle(folder / (folder / "current").read_text().strip())
    text = run.test.inputs["ids"].reshape(-1)
    prompts = [text[1_000 * row :][: 1 + row % 15].tolist() for row in range(NUM_PROMPTS)]
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
    num_equal, num_tokens, largest = 0, 0, 0.0
    for prompt, completion in zip(prompts, asyncio.run(generate(session, prompts)), strict=True):
        ids = [token.id for token in completion.tokens]
        with torch.inference_mode():
            logits = run.model(torch.tensor([prompt + ids]))[0, len(prompt) - 1 : -1]
            expected = logits.log_softmax(dim=-1).gather(1, torch.tensor(ids)[:, None])[:, 0].numpy()
        num_equal += int((logits.argmax(dim=-1).numpy() == ids).sum())
        num_tokens += len(ids)
        largest = max(largest, float(np.abs(expected - [token.logprob for token in completion.tokens]).max()))
    print(
        f"{num_equal:,} of {num_tokens:,} greedy tokens are PyTorch's; "
        f"log probabilities differ by at most {largest:.2g}"
    )
    if num_equal < num_tokens:
        sys.exit(1)


async def generate(session: Session, prompts: list[list[int]]) -> list[Completion]:
    runner = untimed_runner()
    sampling = Sampling(temperature=0, top_k=0, top_p=1, seed=0)
    params = GenerationParams(max_tokens=NUM_TOKENS, sampling=sampling, num_logprobs=0)
    completions = await complete(runner.generate(session, lambda _: "", prompts, params))
    runner.close()
    return completions


if __name__ == "__main__":
    main()
