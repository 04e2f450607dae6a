"""The requests of Triton's perf_analyzer, as its sources make them, for a model of fixed and one of ragged tensors.

The package of that name in the registry holds no program, so the requests are written here: those of
src/model_parser.cc, src/client_backend/triton and src/inference_profiler.cc of perf_analyzer, with the bodies of
src/c++/library/http_client.cc of Triton's client.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from tests.service.bundles import example_inputs

MODELS = {"tiny-images": "image-classifier", "tiny-texts": "text-classifier", "tiny-series": "series-classifier"}


class PerfAnalyzer:
    """Makes the requests of `perf_analyzer -m NAME -b BATCH` in its order."""

    def __init__(self, client: httpx.Client, name: str, *, batch: int, version: str = "") -> None:
        self._client = client
        self.name, self.batch, self.version = name, batch, version
        self.model = f"/models/{name}" + (f"/versions/{version}" if version else "")
        self.extensions = self.read("")["extensions"]
        self.metadata, self.config = self.read(self.model), self.read(f"{self.model}/config")
        # It adds the batch axis where the configuration has a largest batch, and refuses larger batches itself.
        self.has_batch_axis = self.config["max_batch_size"] > 0
        assert batch <= self.config["max_batch_size"]
        names = {tensor["name"] for tensor in self.metadata["inputs"]}
        assert {tensor["name"] for tensor in self.config["input"]} == names, "no metadata found for input tensor"

    def read(self, path: str) -> Any:
        response = self._client.get(path)
        assert response.status_code == 200, response.text
        return orjson.loads(response.content)

    def shape(self, tensor: dict[str, Any], value: Any) -> list[int]:
        """The shape that is sent: the batch size before the shape of the metadata, whose free axes are the user's."""
        shape = tensor["shape"][1:] if self.has_batch_axis else tensor["shape"]
        given = list(value.shape[1:])
        assert len(shape) == len(given)
        assert all(size in {-1, other} for size, other in zip(shape, given, strict=True))
        return [self.batch, *given]

    def infer(self, values: dict[str, Any], *, binary: bool) -> dict[str, Any]:
        inputs, raw = [], []
        for tensor in self.metadata["inputs"]:
            value = values[tensor["name"]]
            entry = {"name": tensor["name"], "datatype": tensor["datatype"], "shape": self.shape(tensor, value)}
            if binary:
                raw.append(value.tobytes())
                entry["parameters"] = {"binary_data_size": len(raw[-1])}
            else:
                entry["data"] = value.ravel().tolist()
            inputs.append(entry)
        outputs = [
            {"name": tensor["name"], "parameters": {"binary_data": binary}} for tensor in self.metadata["outputs"]
        ]
        head = orjson.dumps({"id": "0", "inputs": inputs, "outputs": outputs})
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        response = self._client.post(
            f"{self.model}/infer",
            content=head + b"".join(raw),
            headers=headers if binary else {"Content-Type": "application/json"},
        )
        assert response.status_code == 200, response.text
        size = int(response.headers.get("inference-header-content-length", len(response.content)))
        document, rest = orjson.loads(response.content[:size]), response.content[size:]
        assert document["id"] == "0"
        answers = {}
        for output in document["outputs"]:
            assert output["datatype"] == "FP32"
            if binary:
                end = output["parameters"]["binary_data_size"]
                numbers, rest = np.frombuffer(rest[:end], np.float32), rest[end:]
            else:
                numbers = np.float32(output["data"])
            answers[output["name"]] = numbers.reshape(output["shape"])
        return answers

    def statistics(self) -> dict[tuple[str, str], dict[str, int]]:
        """What ParseStatistics keeps of each model and version; every value is an unsigned number."""
        found = {}
        for row in self.read(f"{self.model}/stats")["model_stats"]:
            counts = {"inference": row["inference_count"], "execution": row["execution_count"]}
            for kind in (
                "success", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"
            ):  # fmt: skip
                for unit in ("count", "ns"):
                    counts[f"{kind}.{unit}"] = row["inference_stats"][kind][unit]
            assert all(type(count) is int and count >= 0 for count in counts.values())
            found[row["name"], row["version"]] = counts
        return found

    def stats_version(self, before: Any, after: Any) -> str:
        """DetermineStatsModelVersion: versions are read as numbers, and written as such to look one up."""
        if self.version:
            assert (self.name, self.version) in after
            return str(int(self.version))
        grown = [
            int(version)
            for (name, version), counts in after.items()
            if name == self.name
            and counts["queue.count"] > before.get((name, version), {"queue.count": 0})["queue.count"]
        ]
        assert grown, "failed to find the requested model version"
        return str(max(grown))


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{address}/v2", timeout=30) as client:
        yield client


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("version", ["", "1"])
def test_a_measurement_is_answered(name: str, batch: int, binary: bool, version: str, client: httpx.Client) -> None:
    analyzer = PerfAnalyzer(client, name, batch=batch, version=version)
    values = example_inputs(MODELS[name], batch=batch)
    before = analyzer.statistics()
    answers = [analyzer.infer(values, binary=binary) for _ in range(3)]
    after = analyzer.statistics()
    key = name, analyzer.stats_version(before, after)
    grown = {count: after[key][count] - before[key][count] for count in after[key]}
    assert (grown["success.count"], grown["inference"]) == (3, 3 * batch)
    assert 0 < grown["execution"] == grown["compute_infer.count"] == grown["queue.count"]
    assert grown["compute_infer.ns"] > 0
    single = PerfAnalyzer(client, name, batch=1)
    for row in range(batch):
        rows = {key: value[row : row + 1] for key, value in values.items()}
        for output, numbers in single.infer(rows, binary=True).items():
            assert all(np.array_equal(answer[output][row], numbers[0]) for answer in answers)
