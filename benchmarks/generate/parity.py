"""Are greedy tokens and log probabilities those of PyTorch's full forward pass, without cache, chunks or batch?

    python -m benchmarks.generate.parity [--runs runs] [--bundles bundles] [--model text-transformer] [--folder FOLDER]

50 prompts of the test text are continued by 240 tokens, fewer in a shorter context, all in one company. Their lengths
are spread from one token to what the context leaves. PyTorch then computes each whole text at once. `--folder` compares
with a folder of `transformers` instead of a run. Prints how many tokens are the most probable ones, and the largest
difference of a log probability.
"""

import argparse
import asyncio
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.engine.server import ROOT
from export.source import Source
from export.sources.huggingface.source import read_folder
from export.sources.run import run_source
from service.bundle import current_version, open_bundle
from service.engine.generation.events import GenerationParams
from service.engine.generation.sampler import Sampling
from service.engine.generation.stream import Completion, complete
from service.engine.runner import untimed_runner
from service.engine.sessions.session import Session
from training.checkpoint import load_run

NUM_PROMPTS, NUM_TOKENS = 50, 240
MIN_PROMPTS_ROOM = 16  # tokens of the context for prompts, at least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--model", default="text-transformer")
    parser.add_argument("--folder", type=Path, help="a causal model that save_pretrained wrote")
    args = parser.parse_args()
    if args.folder:
        source = read_folder(args.folder, "text-generation", name=args.model)
    else:
        source = run_source(load_run(args.runs / args.model))
    folder = args.bundles / args.model
    bundle = open_bundle(folder / current_version(folder))
    prompts, max_tokens = choose_prompts(source)
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu", data=bundle.data)
    num_equal, num_tokens, largest = 0, 0, 0.0
    for prompt, completion in zip(prompts, asyncio.run(generate(session, prompts, max_tokens)), strict=True):
        ids = [token.id for token in completion.tokens]
        logits_TV = source.predict({"ids": np.array([prompt + ids])})["logits"][0, len(prompt) - 1 : -1]
        expected = torch.from_numpy(logits_TV).log_softmax(dim=-1).numpy()[np.arange(len(ids)), ids]
        num_equal += int((logits_TV.argmax(axis=-1) == ids).sum())
        num_tokens += len(ids)
        largest = max(largest, float(np.abs(expected - [token.logprob for token in completion.tokens]).max()))
    print(
        f"{num_equal:,} of {num_tokens:,} greedy tokens are PyTorch's; "
        f"log probabilities differ by at most {largest:.2g}"
    )
    if num_equal < num_tokens:
        sys.exit(1)


def choose_prompts(source: Source) -> tuple[list[list[int]], int]:
    """Return prompts from all over the test text, and the number of tokens after which the longest is full."""
    text, context = source.examples.inputs["ids"].reshape(-1), source.limits.max_steps
    assert context is not None
    max_tokens = min(NUM_TOKENS, context - MIN_PROMPTS_ROOM)
    sizes = np.linspace(1, context - max_tokens, NUM_PROMPTS).astype(int)
    starts = np.linspace(0, text.size - sizes[-1], NUM_PROMPTS).astype(int)
    return [text[start:][:size].tolist() for start, size in zip(starts, sizes, strict=True)], max_tokens


async def generate(session: Session, prompts: list[list[int]], max_tokens: int) -> list[Completion]:
    runner = untimed_runner()
    sampling = Sampling(temperature=0, top_k=0, top_p=1, seed=0)
    params = GenerationParams(max_tokens=max_tokens, sampling=sampling, num_logprobs=0)
    completions = await complete(runner.generate(session, lambda _: "", prompts, params))
    runner.close()
    return completions


if __name__ == "__main__":
    main()
