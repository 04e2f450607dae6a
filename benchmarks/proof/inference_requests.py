"""Send broken and odd requests of the Open Inference Protocol: none may be a server error, no answer may be wrong.

    python -m benchmarks.proof.inference_requests [--cases 20000] [--seed 0]

Each case changes a valid request, as JSON or with binary tensors, in its document, its bytes or its headers. An answer
with 200 is compared with the graph, run on the tensors as Python's `json` and numpy read them. The memory of the worker
must stay flat once it is warm.
"""

import argparse
import copy
import http.client
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.scoring.tiny_bundles import write_tiny_bundles
from service.bundle import open_bundle
from service.engine.sessions.session import Session
from tests.e2e.serving import ROOT, environment, start
from tests.service.bundles import NAMES, example_inputs, write_bundle
from tests.service.hosts import GRANIAN

FAMILIES = ("image-classifier", "series-classifier", "text-classifier")
DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}
Send = Callable[[str, bytes, dict[str, str]], tuple[int, dict[str, str], bytes]]
WARM_CASES = 2_000
MAX_GROWTH_BYTES = 24 << 20

deep: Any = []
for _ in range(600):
    deep = [deep]
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 4, 2**31, 2**63, 2**64, 2**200, 1.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "a", "np", "str", "base64", "1", "BYTES", "UINT8", "INT64", "FP32", "FP16", "x" * 5_000, "\ud800", "\0"),
    *([], [[]], [1], [[1], [2, 3]], ["a", "b"], {}, {"a": 1}, {"name": "logits"}, deep),
)
KEYS = (
    *("id", "model_name", "model_version", "inputs", "outputs", "parameters", "name", "shape", "datatype", "data", ""),
    *("timeout", "binary_data_output", "binary_data", "binary_data_size", "classification", "priority", "headers"),
    *("sequence_id", "sequence_start", "content_type", "shared_memory_region", "a/b~c"),
)
CONTENT_TYPES = ("application/json", "application/octet-stream", "text/plain", "", "APPLICATION/JSON; charset=utf-8")


class Request:
    """A request that may be changed: its document, and the bytes of its tensors."""

    def __init__(self, rng: random.Random) -> None:
        family = rng.choice(FAMILIES)
        self.model, self.family = NAMES[family], family
        self.headers = {"content-type": "application/json"}
        self.document: Any = {}
        self.raw = b""
        if family == "text-classifier" and rng.random() < 0.5:
            texts = [rng.choice(("the train", "a", "train the a a", "é \U0001f600")) for _ in range(rng.randint(1, 3))]
            self.document = {"inputs": [{"name": "texts", "shape": [len(texts)], "datatype": "BYTES", "data": texts}]}
        else:
            self._add_tensors(example_inputs(family, batch=rng.randint(1, 3), seed=rng.randint(0, 9)), rng)
        if rng.random() < 0.5:
            self.document["id"] = str(rng.random())
        if rng.random() < 0.5:
            parameters = rng.choice(({"binary_data": rng.random() < 0.5}, {"classification": rng.randint(0, 4)}, {}))
            self.document["outputs"] = [{"name": "probabilities", "parameters": parameters}]
        if rng.random() < 0.3:
            self.document["parameters"] = {"binary_data_output": rng.random() < 0.5, "priority": 0}

    def _add_tensors(self, inputs: Any, rng: random.Random) -> None:
        self.document["inputs"] = entries = []
        for name, value in inputs.items():
            entry = {"name": name, "shape": list(value.shape), "datatype": DATATYPES[value.dtype.name]}
            if rng.random() < 0.5:
                entry["parameters"] = {"binary_data_size": value.nbytes}
                self.raw += value.tobytes()
            else:
                entry["data"] = rng.choice((value.ravel(), value)).tolist()
            entries.append(entry)

    def write(self, rng: random.Random) -> tuple[bytes, dict[str, str]]:
        """Return body and headers, perhaps changed in their bytes."""
        head = json.dumps(self.document, ensure_ascii=rng.random() < 0.7).encode("utf-8", "surrogatepass")
        headers = dict(self.headers)
        if self.raw or rng.random() < 0.1:
            headers["inference-header-content-length"] = str(len(head))
        body = head + self.raw
        if rng.random() < 0.15:
            body = _change_bytes(body, rng)
        if rng.random() < 0.1:
            headers["inference-header-content-length"] = rng.choice(
                (str(len(head) + rng.choice((-1, 1))), "0", "-1", "x", "9" * 30, "", " 7", str(len(body)))
            )
        if rng.random() < 0.05:
            headers["content-type"] = rng.choice(CONTENT_TYPES)
        return body, headers


def _change_bytes(body: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(body) + 1)
    match rng.randrange(4):
        case 0:
            return body[:at]
        case 1:
            return body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]
        case 2:
            return body[:at] + rng.randbytes(rng.randint(1, 9)) + body[at:]
        case _:
            return body[:at] + body[max(at - rng.randint(1, 40), 0) :]


def _odd(rng: random.Random) -> Any:
    return _copy(rng.choice(ODD))


def _copy(value: Any) -> Any:
    """Return a copy, because later changes may go into it; None for what is nested too deep to copy."""
    if value is deep:
        return deep
    try:
        return copy.deepcopy(value)
    except RecursionError:
        return None


def change(document: Any, rng: random.Random) -> Any:
    """Return the document with one place replaced, removed, repeated or added."""
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
            places.append((node, key))
            if isinstance(value, dict | list) and value is not deep:
                collect(value)

    if not isinstance(document, dict | list) or rng.random() < 0.02:
        return _odd(rng)
    collect(document)
    if not places:
        return _odd(rng)
    node, key = rng.choice(places)
    match rng.randrange(4):
        case 0:
            node[key] = _odd(rng)
        case 1:
            del node[key]
        case 2 if isinstance(node, list):
            node.append(_copy(node[key]))
        case _ if isinstance(node, dict):
            node[rng.choice(KEYS)] = _odd(rng)
        case _:
            node[key] = _odd(rng)
    return document


class Oracle:
    """Computes what a request asks for with the graphs themselves."""

    def __init__(self, folder: Path) -> None:
        bundles = {family: open_bundle(write_bundle(folder, family)) for family in FAMILIES}
        self._sessions = {
            family: Session(bundle.model, manifest=bundle.manifest, device="cpu") for family, bundle in bundles.items()
        }

    def differences(self, request: Request, body: bytes, headers: dict[str, str], answer: Any) -> str | None:
        """Return what is wrong with an answer of 200, or None. `answer` maps names of outputs to arrays."""
        size = headers.get("inference-header-content-length") or len(body)
        tensors = _read_tensors(json.loads(body[: int(size)]), body[int(size) :])
        if "texts" in tensors:
            return None  # compared with the native route by the tests of the route
        expected = self._sessions[request.family].run(tensors)
        for name, value in answer.items():
            if value.dtype == np.float32 and not np.allclose(value, expected[name], atol=1e-5, rtol=1e-4):
                return f"{name} differs by {np.abs(value - expected[name]).max()}"
        return None


def _read_tensors(document: Any, raw: bytes) -> dict[str, Any]:
    tensors = {}
    for entry in document["inputs"]:
        shape, size = entry["shape"], (entry.get("parameters") or {}).get("binary_data_size")
        if len(shape) == 2 and shape[1] == 1 and entry["name"] in {"lengths", "texts"}:
            shape = shape[:1]
        if entry["datatype"] == "BYTES":
            tensors[entry["name"]] = entry.get("data")
            continue
        dtype = DTYPES[entry["datatype"]]
        if size is None:
            flat = np.array(entry["data"], dtype)
        else:
            flat, raw = np.frombuffer(raw[:size], dtype), raw[size:]
        tensors[entry["name"]] = flat.reshape(shape)
    assert not raw, "bytes that belong to no tensor"
    return tensors


def read_answer(headers: dict[str, str], content: bytes) -> dict[str, Any]:
    """Return the outputs of an answer by name."""
    size = int(headers.get("inference-header-content-length", len(content)))
    document, raw = json.loads(content[:size]), content[size:]
    outputs = {}
    for output in document["outputs"]:
        length = output.get("parameters", {}).get("binary_data_size")
        if output["datatype"] == "BYTES":
            outputs[output["name"]] = np.array([], object)
            raw = raw[length or 0 :]
        elif length is None:
            outputs[output["name"]] = np.float32(output["data"]).reshape(output["shape"])
        else:
            outputs[output["name"]], raw = (
                np.frombuffer(raw[:length], np.float32).reshape(output["shape"]),
                raw[length:],
            )
    assert not raw, "bytes that belong to no output"
    return outputs


def run_case(rng: random.Random, send: Send, oracle: Oracle) -> tuple[int, str | None]:
    """Send one request; return its status, and what is wrong with the answer or None."""
    request = Request(rng)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        request.document = change(request.document, rng)
    body, headers = request.write(rng)
    status, answered, content = send(f"/v2/models/{request.model}/infer", body, headers)
    if status == 200:
        return status, oracle.differences(request, body, headers, read_answer(answered, content))
    if status == 504 and b'"timeout"' in body:
        return status, None  # the request asked for an answer within microseconds
    if not 400 <= status < 500:
        return status, f"status {status}: {content[:300]!r}"
    error = json.loads(content)
    if not error.get("error") or error["status"] != status:
        return status, f"no error of the protocol: {content[:300]!r}"
    return status, None


def main() -> None:
    parser = argparse.ArgumentParser(description="Send broken and odd requests of the Open Inference Protocol.")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, statuses, num_wrong = random.Random(args.seed), Counter[int](), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_bundles(folder / "bundles")
        env = environment(EKIBEN_BUNDLES=str(folder / "bundles"), BENTOML_HOME=name)
        oracle = Oracle(folder / "oracle")
        with start(GRANIAN, env=env, cwd=ROOT, log=folder / "log") as server:
            send = sender(server.port)
            warm_bytes = 0
            for case in range(args.cases):
                if case == min(WARM_CASES, args.cases // 2):
                    warm_bytes = memory_bytes(server.process.pid)
                status, reason = run_case(rng, send, oracle)
                statuses[status] += 1
                if reason is not None:
                    num_wrong += 1
                    print(f"case {case}: {reason}")
            grown = memory_bytes(server.process.pid) - warm_bytes
    print("| status | requests |\n| --- | --- |")
    for status, count in sorted(statuses.items()):
        print(f"| {status} | {count} |")
    print(
        f"{args.cases} cases, {num_wrong} wrong; memory grew by {grown / (1 << 20):.1f} MB after the first {WARM_CASES}"
    )
    sys.exit(int(num_wrong > 0 or grown > MAX_GROWTH_BYTES))


def memory_bytes(master: int) -> int:
    """The memory of the service, without what its processes share."""
    processes = [psutil.Process(master), *psutil.Process(master).children(recursive=True)]
    return sum(process.memory_full_info().uss for process in processes)


def sender(port: int) -> Send:
    """Return a function that sends requests over one connection, opened again where the service closes it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def send(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            content = response.read()
        except (http.client.HTTPException, ConnectionError):
            connection.close()
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            content = response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, content

    return send


if __name__ == "__main__":
    main()
