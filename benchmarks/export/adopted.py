"""Export models from elsewhere of a realistic size through all gates, and measure time and memory.

    python -m benchmarks.export.adopted [NAME...] [--folder FOLDER]

Each model is built from its configuration and a seed, saved as its own library saves it, and exported by the command
that a user gives, in a process of its own. `peak` is the largest resident memory of any process of the command. The
bundle then answers by the engine, and its answer is compared with that of the library. Exit status 1 if a model is
refused, answers differently, or exceeds its limit of memory.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from service.bundle import current_version, open_bundle
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.engine.sessions.session import Session
from service.engine.sessions.tokenizer import read_tokenizer
from service.tasks.replay import answer_request

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
END = "<|endoftext|>"
PROMPTS = ["the ", "once upon", "x = 1"]
NUM_TOKENS = 20


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """`save` writes the model into a folder; `arguments` are those of `python -m export`, before the folder.

    `check` compares an answer of the bundle with the folder's own and returns what differs, or None.
    """

    save: Callable[[Path], None]
    arguments: tuple[str, ...]
    check: Callable[[Path, Model], str | None]
    max_bytes: int


def byte_pairs(vocabulary: int) -> Tokenizer:
    """A tokenizer of bytes with as many merges as the vocabulary holds: pairs of letters, pairs of pairs, and so on."""
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = "etaoinsrhldcumfpgwybvkxjqz"
    known, merges = set(tokens), list[tuple[str, str]]()
    level: list[str] = ["Ġ", *letters]
    while len(known) < vocabulary - 1:
        candidates = ((left, right) for left in level for right in letters)
        level = []
        for left, right in candidates:
            if len(known) < vocabulary - 1 and left + right not in known:
                known.add(left + right)
                tokens.append(left + right)
                merges.append((left, right))
                level.append(left + right)
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    return tokenizer


def save_gpt2(folder: Path) -> None:
    """GPT-2 with its vocabulary, context and width, a tied output layer, and two layers."""
    torch.manual_seed(0)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_pairs(50_257), bos_token=END, eos_token=END, unk_token=END
    )
    config = transformers.GPT2Config(n_layer=2)
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def check_continuations(folder: Path, model: Model) -> str | None:
    """Greedy continuations, compared with `generate`."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder)
    completions = ask(model, prompt=PROMPTS, temperature=0, max_tokens=NUM_TOKENS)["completions"]
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        settings = {"max_new_tokens": NUM_TOKENS, "do_sample": False, "pad_token_id": reference.config.eos_token_id}
        row = reference.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, ids.shape[1] :]
        expected = tokenizer.decode(row, skip_special_tokens=True)
        if completion["text"] != expected:
            return f"{prompt!r} is continued with {completion['text']!r}, generate gives {expected!r}"
    return None


MODELS = {
    "gpt2-two-layers": Adopted(
        save=save_gpt2, arguments=("hf", "--task", "text-generation"), check=check_continuations, max_bytes=4 * GIB
    ),
}


def ask(model: Model, **body: Any) -> dict[str, Any]:
    """Answer a request by the engine."""

    async def answer() -> dict[str, Any]:
        runner = Runner()
        try:
            return await answer_request(model, runner, {"model": model.manifest.name, **body})
        finally:
            runner.close()

    return asyncio.run(answer())


def load_model(bundles: Path, name: str) -> Model:
    """The current version of the bundle, as the service loads it."""
    folder = bundles / name
    bundle = open_bundle(folder / current_version(folder))
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu", data=bundle.data)
    return Model(manifest=bundle.manifest, session=session, tokenizer=read_tokenizer(bundle))


def export(name: str, adopted: Adopted, root: Path) -> tuple[float, int, str | None]:
    """Seconds and peak bytes of the export, and what is wrong, if anything."""
    folder, bundles = root / name, root / "bundles"
    adopted.save(folder)
    command, *others = adopted.arguments
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "export", command, str(folder), *others, "--bundles", str(bundles)], cwd=ROOT
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds, peak_bytes = time.perf_counter() - started, usage.ru_maxrss * 1024
    if os.waitstatus_to_exitcode(status):
        return seconds, peak_bytes, "refused"
    if peak_bytes > adopted.max_bytes:
        return seconds, peak_bytes, f"more than {adopted.max_bytes / GIB:.1f} GiB"
    return seconds, peak_bytes, adopted.check(folder, load_model(bundles, name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*MODELS, []], metavar="NAME", help=f"of {', '.join(MODELS)}")
    parser.add_argument(
        "--folder", type=Path, help="a folder for the models and their bundles (default: a temporary one)"
    )
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="adopted-") as temporary:
        print(f"{'model':24} {'seconds':>8} {'peak GiB':>9}  answers")
        for name in options.names or MODELS:
            seconds, peak_bytes, fault = export(name, MODELS[name], options.folder or Path(temporary))
            print(f"{name:24} {seconds:8.0f} {peak_bytes / GIB:9.2f}  {fault or 'as its library'}", flush=True)
            failed += fault is not None
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
