"""Requests are made from a file, or from what the server says of the model."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.slo.known_delays import delayed_server
from ekiben.bench.samples import SampleError, encode, load_samples


def test_files_and_metadata_make_requests(tmp_path: Path) -> None:
    with delayed_server() as url:
        default = load_samples(url, "delayed", headers={"X-Team": "a"})
        assert len(set(default.requests)) == 64
        assert b"X-Team: a\r\n" in default.requests[0]
        save_file({"inputs/x": np.ones((3, 4), np.float32), "targets": np.array([1, 0, 1])}, tmp_path / "data")
        read = load_samples(url, "delayed", data=tmp_path / "data", headers={})
        assert read.requests[0] == encode(url, "delayed", {"x": np.ones((1, 4), np.float32)}, "scores", {})
        save_file({"inputs/x": np.ones((3, 4), np.float32), "targets": np.array([1])}, tmp_path / "data")
        with pytest.raises(SampleError, match="the tensors have 1, 3 items"):
            load_samples(url, "delayed", data=tmp_path / "data", headers={})


def test_texts_are_packed() -> None:
    request = encode("http://h:1", "m", {"t": np.array([[b"ab"]])}, None, {})
    assert request.startswith(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h:1\r\n")
    assert request.endswith(b"\x02\x00\x00\x00ab")
