"""The device is resolved by running a session on it."""

import os
from typing import Any

import onnx
import onnxruntime
import pytest

from service.engine.sessions.device import (
    PROBE_MODEL,
    DeviceSetting,
    is_tf32_forbidden,
    require_provider,
    resolve_device,
)
from service.errors import DeviceError

no_gpu_build = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this runtime may have a GPU"
)


def test_the_probe_model_is_one_relu() -> None:
    model = onnx.load_from_string(PROBE_MODEL)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Relu"]
    session = onnxruntime.InferenceSession(PROBE_MODEL, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": onnx.numpy_helper.to_array(onnx.helper.make_tensor("x", 1, [1], [-2]))})[0] == [0]


def test_the_cpu_is_always_available() -> None:
    require_provider("cpu", allow_tf32=False)
    assert resolve_device("cpu", allow_tf32=False) == "cpu"


@no_gpu_build
def test_auto_selects_the_cpu_without_a_gpu() -> None:
    assert resolve_device("auto", allow_tf32=False) == "cpu"


@no_gpu_build
def test_cuda_is_refused_without_a_gpu() -> None:
    with pytest.raises(DeviceError, match="device 'cuda' was requested, but this onnxruntime has only"):
        resolve_device("cuda", allow_tf32=False)


@no_gpu_build
def test_the_environment_decides_if_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EKIBEN_DEVICE", raising=False)
    assert resolve_device(None, allow_tf32=False) == "cpu"
    monkeypatch.setenv("EKIBEN_DEVICE", "cuda")
    assert resolve_device("auto", allow_tf32=False) == "cpu"
    with pytest.raises(DeviceError, match="device 'cuda' was requested, but this onnxruntime has only"):
        resolve_device(None, allow_tf32=False)
    monkeypatch.setenv("EKIBEN_DEVICE", "gpu")
    with pytest.raises(DeviceError, match="EKIBEN_DEVICE='gpu': expected auto, cpu, cuda"):
        resolve_device(None, allow_tf32=False)


@pytest.mark.skipif(hasattr(onnxruntime, "cuda_version") and bool(onnxruntime.cuda_version), reason="a GPU build")
def test_a_listed_provider_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime built for CUDA lists the provider even without a GPU, and its sessions fall back to the CPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    assert resolve_device("auto", allow_tf32=False) == "cpu"
    with pytest.raises(DeviceError, match="a session there fails"):
        resolve_device("cuda", allow_tf32=False)


class FakeGpu:
    """A session of a runtime with a GPU; it lists the provider on which its graphs run first."""

    actual = "CUDAExecutionProvider"

    def __init__(self, model: bytes, options: onnxruntime.SessionOptions, *, providers: list[Any]) -> None:
        assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        [(self.provider, self.options)] = providers
        self._session = onnxruntime_session(model, providers=["CPUExecutionProvider"])

    def run(self, names: list[str] | None, inputs: dict[str, Any]) -> Any:
        assert self.provider == "CUDAExecutionProvider"
        return self._session.run(names, inputs)

    def get_providers(self) -> list[str]:
        return [self.actual, "CPUExecutionProvider"]


onnxruntime_session = onnxruntime.InferenceSession


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeGpu)
    # It is restored to what it was, not to what a test sets.
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")


@pytest.mark.parametrize("setting", ["auto", "cuda"])
@pytest.mark.usefixtures("fake_gpu")
def test_a_gpu_on_which_a_session_runs_is_selected(setting: DeviceSetting) -> None:
    assert resolve_device(setting, allow_tf32=False) == "cuda"


@pytest.mark.usefixtures("fake_gpu")
def test_a_session_that_falls_back_to_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeGpu, "actual", "CPUExecutionProvider")
    assert resolve_device("auto", allow_tf32=False) == "cpu"
    with pytest.raises(DeviceError, match="the session got CPUExecutionProvider, CPUExecutionProvider"):
        resolve_device("cuda", allow_tf32=False)


@pytest.mark.usefixtures("fake_gpu")
def test_tf32_is_forbidden_before_cuda_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    override = "NVIDIA_TF32_OVERRIDE"
    monkeypatch.setenv(override, "1")
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: loaded_with.append(os.environ[override]))
    loaded_with: list[str] = []
    assert not is_tf32_forbidden()
    assert resolve_device("cuda", allow_tf32=False) == "cuda"
    assert is_tf32_forbidden()
    require_provider("cuda", allow_tf32=True)
    assert is_tf32_forbidden(), "the first call decides"
    assert loaded_with == ["0"]


@pytest.mark.usefixtures("fake_gpu")
def test_a_process_that_may_use_tf32_does_not_pretend_to_forbid_it_later() -> None:
    assert resolve_device("cuda", allow_tf32=True) == "cuda"
    require_provider("cuda", allow_tf32=False)
    assert not is_tf32_forbidden()


def test_a_process_on_the_cpu_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    require_provider("cpu", allow_tf32=False)
    assert resolve_device("cpu", allow_tf32=False) == "cpu"
    assert not is_tf32_forbidden()
