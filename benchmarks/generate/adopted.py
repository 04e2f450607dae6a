"""Do a GPT-2 and a Llama of `transformers` generate as exactly as the run's own language model?

    python -m benchmarks.generate.adopted [NAME...] [--folder FOLDER] [--requests 60]

Each model is built from its configuration and a seed, and exported by `python -m export hf`. It then goes through
`benchmarks.generate.company` and `benchmarks.generate.parity`, and OpenAI's client must receive the texts of POST
/generate, whole and as streams. The GPT-2 has a tied output layer and a context of 1,024, the Llama two heads of keys
and values for four of queries and a context that is no multiple of a chunk; both end texts at a token. Exit status 1 if
a model is refused or answers differently.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import torch
import transformers
from transformers import PreTrainedModel

from benchmarks.engine.server import ROOT, serve, split_cores
from benchmarks.export.adopted import END, byte_pairs
from benchmarks.generate.company import make_bodies

VOCABULARY, WIDTH, LAYERS, HEADS = 512, 128, 2, 4
GPT2_CONTEXT, LLAMA_CONTEXT = 1_024, 200
NUM_CLIENT_REQUESTS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*MODELS, []], metavar="NAME", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--folder", type=Path, help="for the models and their bundles (default: a temporary one)")
    parser.add_argument("--requests", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="adopted-") as temporary:
        root = args.folder or Path(temporary)
        for name in args.names or MODELS:
            folder, bundles = root / name, root / "bundles"
            if not (bundles / name).exists():
                export(folder, bundles)
            print(f"{name}:", flush=True)
            options = ["--bundles", str(bundles), "--model", name]
            run("benchmarks.generate.company", *options, "--requests", str(args.requests))
            run("benchmarks.generate.parity", *options, "--folder", str(folder))
            ask_client(bundles, name)


def gpt2() -> PreTrainedModel:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=GPT2_CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        bos_token_id=VOCABULARY - 1, eos_token_id=VOCABULARY - 1,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def llama() -> PreTrainedModel:
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS // 2, max_position_embeddings=LLAMA_CONTEXT,
        bos_token_id=VOCABULARY - 1, eos_token_id=VOCABULARY - 1,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {"gpt2": gpt2, "llama": llama}


def save(folder: Path) -> None:
    """Write the model of the folder's name, with weights large enough that probabilities are far from uniform."""
    torch.manual_seed(0)
    model = MODELS[folder.name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_pairs(VOCABULARY), bos_token=END, eos_token=END, unk_token=END
    )
    tokenizer.save_pretrained(folder)


def export(folder: Path, bundles: Path) -> None:
    """Save the model of the folder's name there and export it."""
    save(folder)
    run("export", "hf", str(folder), "--task", "text-generation", "--bundles", str(bundles))


def ask_client(bundles: Path, name: str) -> None:
    """Compare completions and streams of OpenAI's client with POST /generate."""
    cores, _ = split_cores(1)
    reasons = []
    with serve(bundles, 1, cores) as (_, port):
        address = f"http://127.0.0.1:{port}"
        with openai.OpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0) as client:
            for body in make_bodies(name, NUM_CLIENT_REQUESTS):
                native = httpx.post(f"{address}/generate", json=body, timeout=60).json()["completions"][0]
                asked = {key: body[key] for key in ("model", "prompt", "max_tokens", "seed", "temperature", "top_p")}
                others = {"extra_body": {"top_k": body["top_k"]}}
                [whole] = client.completions.create(**asked, **others).choices
                parts = [chunk.choices[0] for chunk in client.completions.create(**asked, **others, stream=True)]
                got = (whole.text, "".join(part.text for part in parts))
                if set(got) != {native["text"]} or parts[-1].finish_reason != whole.finish_reason:
                    sys.exit(f"{body}: {native}, but OpenAI's client receives {got}")
                reasons.append(whole.finish_reason)
    print(
        f"OpenAI's client: {len(reasons)} completions, whole and streamed, have the text of POST /generate; "
        f"{reasons.count('stop')} ended at the model's own token",
        flush=True,
    )


def run(module: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
