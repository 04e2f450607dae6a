"""CPU time of one token without a server: the bare loop on the shipped graph, and `generate` of transformers.

    python -m benchmarks.generate.baselines BUNDLE --rows 8 --tokens 128 --method bare|transformers

The bare loop runs the served graph with the served sampler at the served cache capacities, all rows from the first step
to the last, with nothing around it. `transformers` generates with a GPT-2 of the same layers, heads and vocabulary.
Prints microseconds of CPU a token.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from service.bundle import open_bundle
from service.contract.heads import LanguageModelHead
from service.contract.readers import TextReader
from service.engine.generation.kv_cache import BatchCache, cache_capacity, read_prompt
from service.engine.generation.sampler import RowSampler, Sampling, sample_rows
from service.engine.sessions.session import Session
from service.manifest import Manifest

PROMPT_TOKENS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--method", choices=["bare", "transformers"], default="bare")
    args = parser.parse_args()
    prepare = bare_loop if args.method == "bare" else transformers_loop
    run = prepare(args.bundle, args.rows, args.tokens)
    run()
    began = time.process_time()
    for _ in range(3):
        run()
    print((time.process_time() - began) / (3 * args.rows * args.tokens) * 1e6)


def bare_loop(folder: Path, num_rows: int, num_tokens: int) -> Callable[[], None]:
    bundle = open_bundle(folder)
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
    head, context = bundle.manifest.head, bundle.manifest.limits.max_steps or 0
    assert isinstance(head, LanguageModelHead)
    prompt = np.arange(PROMPT_TOKENS) % _vocabulary(bundle.manifest)

    def run() -> None:
        samplers = [
            RowSampler(Sampling(temperature=0.8, top_k=0, top_p=1, seed=row), prompt=prompt.tolist())
            for row in range(num_rows)
        ]
        cache = BatchCache(head, cache_capacity(PROMPT_TOKENS + 1, context))
        for _ in samplers:
            cache.add(read_prompt(session, prompt).values, 0, PROMPT_TOKENS)
        ids = [0] * num_rows
        for position in range(PROMPT_TOKENS, PROMPT_TOKENS + num_tokens):
            if position + 1 > cache.capacity:
                larger = BatchCache(head, cache_capacity(position + 1, context))
                for row in range(num_rows):
                    larger.add(cache.values, row, position)
                cache = larger
            logits_BV = cache.step(session, ids)
            ids = [token.id for token in sample_rows(logits_BV, samplers, [position] * num_rows)]

    return run


def transformers_loop(folder: Path, num_rows: int, num_tokens: int) -> Callable[[], None]:
    torch.set_num_threads(1)
    manifest = open_bundle(folder).manifest
    head = manifest.head
    assert isinstance(head, LanguageModelHead)
    config = GPT2Config(
        vocab_size=_vocabulary(manifest), n_positions=manifest.limits.max_steps, n_embd=head.heads * head.head_size,
        n_layer=head.layers, n_head=head.heads, bos_token_id=0, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    ids = torch.arange(PROMPT_TOKENS).repeat(num_rows, 1) % _vocabulary(manifest)

    def run() -> None:
        with torch.inference_mode():
            model.generate(ids, do_sample=True, temperature=0.8, top_k=0, max_new_tokens=num_tokens)

    return run


def _vocabulary(manifest: Manifest) -> int:
    assert isinstance(manifest.reader, TextReader)
    return manifest.reader.vocabulary


if __name__ == "__main__":
    main()
