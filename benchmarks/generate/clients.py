"""Answers of both hosts to litellm, a client of many providers, unmodified and in an environment of its own.

    python -m benchmarks.generate.clients --python .venv-clients/bin/python [--bundles bundles]

litellm sends a completion, the same as a stream, and a request that is refused. Its texts must be those of
POST /generate.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from tests.e2e.serving import ROOT, SERVE, environment, start
from tests.service.hosts import GRANIAN

FIELDS = {"prompt": "The import statement ", "max_tokens": 24, "seed": 7}
SCRIPT = """
import json, sys
import litellm

address, model = sys.argv[1:3]
fields = json.loads(sys.argv[3])
asked = {"model": f"text-completion-openai/{model}", "api_base": f"{address}/v1", "api_key": "unused", "max_retries": 0}
whole = litellm.text_completion(**asked, **fields)
parts = [chunk.choices[0].text or "" for chunk in litellm.text_completion(**asked, **fields, stream=True)]
try:
    litellm.text_completion(**asked, **{**fields, "max_tokens": 1 << 20})
    refused = "not"
except litellm.BadRequestError as error:
    refused = "max_tokens" if "max_tokens" in str(error) else str(error)
print(json.dumps({"whole": whole.choices[0].text, "stream": "".join(parts), "refused": refused,
                  "reason": whole.choices[0].finish_reason, "tokens": whole.usage.completion_tokens}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Run litellm against both hosts.")
    parser.add_argument("--python", type=Path, required=True, help="the interpreter of an environment with litellm")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--model", default="text-transformer")
    args = parser.parse_args()
    failed = False
    print("| host | completion | stream | refused field |\n| --- | --- | --- | --- |")
    for name, command in (("granian", GRANIAN), ("bentoml", SERVE)):
        with tempfile.TemporaryDirectory() as folder:
            env = environment(
                EKIBEN_BUNDLES=str(args.bundles.resolve()), EKIBEN_READY_WHEN=args.model, BENTOML_HOME=folder
            )
            with start(command, env=env, cwd=ROOT, log=Path(folder) / "log") as host:
                native = httpx.post(f"{host.address}/generate", json={"model": args.model, **FIELDS}, timeout=60).json()
                command_line = [args.python, "-c", SCRIPT, host.address, args.model, json.dumps(FIELDS)]
                done = subprocess.run(command_line, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            sys.exit(done.stderr[-4000:])
        got, expected = json.loads(done.stdout.splitlines()[-1]), native["completions"][0]["text"]
        cells = ["equal" if got[kind] == expected else "**differs**" for kind in ("whole", "stream")]
        failed |= cells != ["equal"] * 2 or got["refused"] != "max_tokens"
        print(f"| {name} | {cells[0]} | {cells[1]} | {got['refused']} |")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
