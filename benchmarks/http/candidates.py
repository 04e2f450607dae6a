"""How many requests it takes to stop a candidate that answers some of them otherwise, and what clients see meanwhile.

    python -m benchmarks.http.candidates [--every 500] [--runs 5]

One request of `--every` gets another label from the candidate. For each run, on two workers, in shadow and as a canary
of a tenth: requests until the first difference is counted and until the candidate is stopped, and the answers that
clients got from it with another label. A candidate that never differs is to pass.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.e2e.serving import ROOT, ServerProcess, environment, start
from tests.service.engine.versions import FAMILY, NAME, differing_graph, set_candidate
from tests.service.hosts import GRANIAN, JSON, ask, counted, wait_until
from tests.service.poisoned import write_whole_bundle

MAX_REQUESTS = 40_000
ROUND = 100


def classify(host: ServerProcess, first_pixel: int) -> dict[str, Any]:
    image = [[first_pixel, *[random.randrange(256) for _ in range(3)]], *[[128] * 4] * 3]
    status, _, content = ask(host.port, "POST", "/classify", json.dumps({"model": NAME, "images": [image]}), **JSON)
    assert status == 200, content
    answer: dict[str, Any] = json.loads(content)
    return answer


def comparison(host: ServerProcess) -> dict[str, Any]:
    rows = json.loads(ask(host.port, "GET", "/models")[2])["models"]
    found: dict[str, Any] = next(row["comparison"] for row in rows if row["name"].endswith("@candidate"))
    return found


def run(every: int, canary: str) -> str:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        candidate = write_whole_bundle(root, FAMILY, NAME, model=differing_graph(1 if every else 0)).name
        write_whole_bundle(root, FAMILY, NAME)
        set_candidate(root / "bundles", candidate)
        env = environment(EKIBEN_BUNDLES=str(root / "bundles"), EKIBEN_CANARY=canary)
        with start((*GRANIAN, "--workers", "2"), env=env, cwd=ROOT, log=root / "log") as host:
            wait_until(lambda: counted(host, f'ekiben_model_ready{{model="{NAME}"') == 4)
            sent = noticed = exposed = 0
            found = comparison(host)
            while found["decision"] == "undecided" and sent < MAX_REQUESTS:
                for _ in range(ROUND):
                    sent += 1
                    differs = bool(every) and random.randrange(every) == 0
                    answer = classify(host, 0 if differs else 255)
                    exposed += differs and answer["version"] == candidate
                found = comparison(host)
                noticed = noticed or (sent if found["different"] else 0)
            decision = f"{found['decision']} | {noticed or '-'} | {sent} | {found['compared']} | {found['different']}"
            return f"| {f'1 of {every}' if every else 'none'} | {canary} | {decision} | {exposed} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.http.candidates", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    random.seed(args.seed)
    print("| differing | canary | decision | noticed after | decided after | compared | different | seen by clients |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for every, canary, runs in ((args.every, "0", args.runs), (args.every, "0.1", args.runs), (0, "0", 1)):
        for _ in range(runs):
            print(run(every, canary), flush=True)


if __name__ == "__main__":
    sys.exit(main())
