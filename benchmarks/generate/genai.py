"""CPU time of one token over HTTP against onnxruntime-genai, with the same Llama of `transformers` on both sides.

    python -m benchmarks.generate.genai [--folder FOLDER] [--rounds 3]

The model builder of onnxruntime-genai makes a float32 model for CPUs of the folder that `python -m export hf` exports.
Its static generator and its engine run without a server, on one thread and the core of the service, in turn with it;
each figure is the median of the rounds. All sample with temperature 0.8.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.engine.server import pinned_to, serve, split_cores
from benchmarks.generate.adopted import VOCABULARY, export
from benchmarks.generate.baselines import PROMPT_TOKENS
from benchmarks.generate.throughput import STREAMS, TOKENS, measure
from benchmarks.peers.processes import install

NAME = "llama"
METHODS = ("generator", "engine")
SCRIPT = """
import sys, time
import onnxruntime_genai as og

folder, method, rows, prompt_tokens, tokens, vocabulary = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
model = og.Model(folder)
prompts = [[(5 * i + row) % (vocabulary - 1) for i in range(prompt_tokens)] for row in range(rows)]

def params(batch_size):
    params = og.GeneratorParams(model)
    length = prompt_tokens + tokens
    params.set_search_options(do_sample=True, temperature=0.8, top_k=0, top_p=1.0, min_length=length,
                              max_length=length, batch_size=batch_size)
    return params

def generator():
    generator = og.Generator(model, params(rows))
    generator.append_tokens(prompts)
    while not generator.is_done():
        generator.generate_next_token()
    return sum(len(generator.get_sequence(row)) - prompt_tokens for row in range(rows))

def engine():
    engine, count = og.Engine(model), 0
    requests = []
    for prompt in prompts:
        request = engine.create_request()
        options = og.TurnOptions(request)
        options.set_do_sample(True)
        options.set_temperature(0.8)
        options.set_top_k(0)
        options.set_top_p(1.0)
        options.set_min_generated_tokens(tokens)
        options.set_max_generated_tokens(tokens)
        request.begin_turn(prompt, options)
        requests.append(request)
    buffer = engine.create_event_buffer(4 * rows)
    while engine.has_pending_requests():
        for event in engine.run(buffer):
            count += bool(event.flags & og.EngineEventFlags.TOKEN)
    return count

run = {"generator": generator, "engine": engine}[method]
run()
began, count = time.process_time(), 0
for _ in range(3):
    count += run()
assert count == 3 * rows * tokens, count
print((time.process_time() - began) / count * 1e6)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="for the model and its bundle (default: a temporary one)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    python = install("genai")
    with tempfile.TemporaryDirectory(prefix="genai-") as temporary:
        root = args.folder or Path(temporary)
        folder, bundles, built = root / NAME, root / "bundles", root / "genai"
        if not (bundles / NAME).exists():
            export(folder, bundles)
        build(python, folder, built)
        print("| streams | service, µs a token | generator | engine | of the generator | of the engine |")
        print("| --- | --- | --- | --- | --- | --- |")
        cores, client_cores = split_cores(1)
        rows: dict[int, list[list[float]]] = {streams: [] for streams in STREAMS}
        with serve(bundles, 1, cores) as (server, port), pinned_to(client_cores):
            for _ in range(args.rounds):
                for streams, figures in rows.items():
                    ours = measure(server, port, NAME, streams, is_whole=False)
                    figures.append([ours, *(other(python, built, way, streams, cores) for way in METHODS)])
        for streams, figures in rows.items():
            medians = [statistics.median(column) for column in zip(*figures, strict=True)]
            ratios = [statistics.median(one[i] / one[0] for one in figures) for i in (1, 2)]
            cells = [*(f"{median:.0f}" for median in medians), *(f"{ratio:.2f}" for ratio in ratios)]
            print(f"| {streams} | {' | '.join(cells)} |")


def build(python: Path, folder: Path, built: Path) -> None:
    """Make a model of onnxruntime-genai that runs on one thread."""
    command = [python, "-m", "onnxruntime_genai.models.builder", "-i", folder, "-o", built, "-p", "fp32", "-e", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    path = built / "genai_config.json"
    config = json.loads(path.read_text())
    config["model"]["decoder"]["session_options"] |= {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
    path.write_text(json.dumps(config))


def other(python: Path, built: Path, method: str, rows: int, cores: list[int]) -> float:
    """Microseconds of CPU a token, or not a number if the method does not run."""
    sizes = map(str, (rows, PROMPT_TOKENS, TOKENS, VOCABULARY))
    with pinned_to(cores):
        done = subprocess.run(
            [python, "-c", SCRIPT, built, method, *sizes], capture_output=True, text=True, check=False
        )
    if done.returncode:
        print(f"{method} at {rows}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return float("nan")
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
