"""A session has the inputs and outputs of its manifest and runs on the device that it reports."""

import inspect
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest

from service.bundle import Bundle
from service.contract.precision import Precision, PrecisionName
from service.engine.sessions import device, session
from service.engine.sessions.session import Session
from service.errors import BundleError, DeviceError
from service.manifest import Manifest
from service.operators import OPERATORS
from tests.service.bundles import example_inputs, weights


def test_results_equal_numpy(sessions: dict[str, Session]) -> None:
    inputs, parts = example_inputs("image-classifier", batch=5), weights("image-classifier")
    logits = inputs["images"].reshape(5, 16).astype(np.float64) @ parts["w"] + parts["b"]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answer = sessions["image-classifier"].run(inputs)
    assert list(answer) == ["logits", "probabilities"]
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(answer["probabilities"], shares, atol=1e-6)


def test_computes_only_the_requested_outputs(sessions: dict[str, Session]) -> None:
    answer = sessions["series-tagger"].run(example_inputs("series-tagger"), ("next_c", "probabilities"))
    assert list(answer) == ["next_c", "probabilities"]


def test_reports_its_provider(sessions: dict[str, Session]) -> None:
    assert {session.provider for session in sessions.values()} == {"CPUExecutionProvider"}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"inputs \[\], expected \['images'\]"),
        ({"images": np.zeros((1, 4, 4), np.uint8), "more": np.zeros(1)}, r"inputs \['images', 'more'\]"),
        ({"images": np.zeros((1, 4, 4))}, r"input 'images' is float64 \[1, 4, 4\], expected uint8 \[batch, 4, 4\]"),
        (
            {"images": np.zeros((1, 4, 5), np.uint8)},
            r"input 'images' is uint8 \[1, 4, 5\], expected uint8 \[batch, 4, 4\]",
        ),
        ({"images": np.zeros((4, 4), np.uint8)}, r"input 'images' is uint8 \[4, 4\]"),
    ],
)
def test_an_input_that_does_not_fit_is_named(
    sessions: dict[str, Session], inputs: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ValueError, match="tiny-images/.*: " + message):
        sessions["image-classifier"].run(inputs)


def test_a_graph_failure_names_the_model(sessions: dict[str, Session]) -> None:
    inputs = {"ids": np.full((1, 2), 10_000), "lengths": np.array([2])}
    with pytest.raises(RuntimeError, match=r"tiny-texts/.*: the graph failed: .*Gather"):
        sessions["text-classifier"].run(inputs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "pixels"}, r"'images': the graph has uint8 \[batch, 4, 4\], but the manifest says none"),
        ({"dtype": "float32"}, r"the graph has uint8 .*, but the manifest says float32"),
        ({"shape": ("batch", 4, 5)}, r"the manifest says uint8 \[batch, 4, 5\]"),
        ({"shape": (1, 4, 4)}, r"the graph has uint8 \[batch, 4, 4\], but the manifest says uint8 \[1, 4, 4\]"),
    ],
)
def test_refuses_a_graph_that_differs_from_the_manifest(
    bundles: dict[str, Bundle], changes: dict[str, object], message: str
) -> None:
    bundle = bundles["image-classifier"]
    spec = bundle.manifest.inputs[0].model_copy(update=changes)
    manifest = bundle.manifest.model_copy(update={"inputs": (spec,)})
    with pytest.raises(BundleError, match=message):
        Session(bundle.model, manifest=manifest, device="cpu")


def test_refuses_a_graph_without_a_declared_input(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["image-classifier"]
    (images,) = bundle.manifest.inputs
    manifest = bundle.manifest.model_copy(update={"inputs": (images, images.model_copy(update={"name": "more"}))})
    with pytest.raises(BundleError, match=r"inputs 'more': the graph has none, but the manifest says uint8 \[batch"):
        Session(bundle.model, manifest=manifest, device="cpu")


def test_refuses_outputs_that_differ_from_the_manifest(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["image-classifier"]
    logits, _ = bundle.manifest.outputs
    manifest = bundle.manifest.model_copy(update={"outputs": (logits,)})
    message = r"outputs 'probabilities': the graph has float32 \[batch, 3\], but the manifest says none"
    with pytest.raises(BundleError, match=message):
        Session(bundle.model, manifest=manifest, device="cpu")
    model = onnx.load_from_string(bundle.model)
    model.graph.node.append(onnx.helper.make_node("Cast", ["logits"], ["more"], to=onnx.TensorProto.DOUBLE))
    model.graph.output.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.DOUBLE, ["batch", 3]))
    with pytest.raises(BundleError, match=r"outputs 'more': the graph has float64 \[batch, 3\], but"):
        Session(model.SerializeToString(), manifest=bundle.manifest, device="cpu")


def test_operators_that_may_run_on_the_cpu_are_standard() -> None:
    assert session.CPU_OPERATORS <= OPERATORS


def test_refuses_a_graph_that_onnxruntime_refuses(bundles: dict[str, Bundle]) -> None:
    with pytest.raises(BundleError, match=r"tiny-images/.*: onnxruntime refuses the graph: "):
        Session(b"\x08\x0a", manifest=bundles["image-classifier"].manifest, device="cpu")


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="may have a GPU")
def test_cuda_never_falls_back_to_the_cpu(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["image-classifier"]
    with pytest.raises(DeviceError, match=r"'cuda' was requested, but this onnxruntime has only .*CPUExecution"):
        Session(bundle.model, manifest=bundle.manifest, device="cuda")


@pytest.mark.skipif(
    "AzureExecutionProvider" not in onnxruntime.get_available_providers(), reason="needs a provider that takes no nodes"
)
def test_a_provider_that_takes_no_nodes_is_refused(bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    """The remote provider of the CPU build replaces a GPU: the session lists it first, but all nodes run on the CPU."""
    idle = {"cuda": [("AzureExecutionProvider", {}), ("CPUExecutionProvider", {})]}
    for module in (device, session):
        monkeypatch.setattr(module, "PROVIDERS", idle)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    bundle = bundles["image-classifier"]
    with pytest.raises(DeviceError, match=r"would run on the CPU, not on AzureExecutionProvider: \[.*Softmax"):
        Session(bundle.model, manifest=bundle.manifest, device="cuda")
    monkeypatch.setattr(
        session, "CPU_OPERATORS", frozenset({"Cast", "Flatten", "Gemm", "FusedGemm", "Softmax", "Reshape"})
    )
    assert Session(bundle.model, manifest=bundle.manifest, device="cuda").provider == "AzureExecutionProvider"


class FakeGpu:
    """A session of a runtime with a GPU that takes every node; it computes on the CPU."""

    given: ClassVar[list[Any]] = []

    def __init__(self, model: bytes, options: Any, *, providers: list[Any], **others: Any) -> None:
        self.given.append(providers)
        self._session = onnxruntime_session(model, options, providers=["CPUExecutionProvider"], **others)

    def get_providers(self) -> list[str]:
        return [name for name, _ in self.given[-1]]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


onnxruntime_session = onnxruntime.InferenceSession


@pytest.fixture
def gpu_options(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """The provider options of the last session on a fake GPU, in a process that has not decided about TF32."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeGpu)
    monkeypatch.setattr(FakeGpu, "given", [])
    # It is restored to what it was, not to what a session sets.
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    return lambda: FakeGpu.given[-1][0][1]


def in_precision(manifest: Manifest, kind: PrecisionName) -> Manifest:
    precision = Precision(kind=kind, parent=f"tiny-images/{'0' * 12}", items=1, agreement=1)
    return manifest.model_copy(update={"precision": precision})


def test_a_bundle_that_allows_tf32_gets_it_on_a_gpu(
    bundles: dict[str, Bundle], gpu_options: Callable[[], dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bundles["image-classifier"]
    Session(bundle.model, manifest=in_precision(bundle.manifest, "tf32"), device="cuda")
    assert gpu_options()["use_tf32"] == "1"
    assert (os.environ.get("NVIDIA_TF32_OVERRIDE"), caplog.messages) == (None, [])
    for manifest in (bundle.manifest, in_precision(bundle.manifest, "fp16")):
        with pytest.raises(DeviceError, match=r"tiny-images/.*: it does not allow TF32, which this process may use"):
            Session(bundle.model, manifest=manifest, device="cuda")
    assert len(FakeGpu.given) == 1


def test_no_bundle_gets_tf32_where_another_forbids_it(
    bundles: dict[str, Bundle], gpu_options: Callable[[], dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bundles["image-classifier"]
    Session(bundle.model, manifest=bundle.manifest, device="cuda")
    assert (gpu_options()["use_tf32"], os.environ["NVIDIA_TF32_OVERRIDE"], caplog.messages) == ("0", "0", [])
    Session(bundle.model, manifest=in_precision(bundle.manifest, "tf32"), device="cuda")
    [message] = caplog.messages
    assert "allows TF32, but computes in float32, because other bundles" in message


def test_a_session_on_the_cpu_has_no_tf32(bundles: dict[str, Bundle], caplog: pytest.LogCaptureFixture) -> None:
    bundle = bundles["image-classifier"]
    manifest = in_precision(bundle.manifest, "tf32")
    assert Session(bundle.model, manifest=manifest, device="cpu").provider == "CPUExecutionProvider"
    assert not caplog.messages


def test_a_session_that_frees_its_activations_gives_the_same_bits(
    bundles: dict[str, Bundle], sessions: dict[str, Session]
) -> None:
    for name, bundle in bundles.items():
        session = Session(bundle.model, manifest=bundle.manifest, device="cpu", keep_memory=False)
        assert not session._session.get_session_options().enable_cpu_mem_arena
        assert sessions[name]._session.get_session_options().enable_cpu_mem_arena
        inputs = example_inputs(name)
        for output, array in sessions[name].run(inputs).items():
            assert session.run(inputs)[output].tobytes() == array.tobytes()


def test_threads_can_share_a_session(sessions: dict[str, Session]) -> None:
    session = sessions["text-classifier"]
    inputs = [example_inputs("text-classifier", batch=1 + seed % 4, seed=seed) for seed in range(64)]
    sequential = [session.run(one)["logits"] for one in inputs]
    with ThreadPoolExecutor(8) as pool:
        concurrent = list(pool.map(lambda one: session.run(one)["logits"], inputs))
    for one, other in zip(sequential, concurrent, strict=True):
        np.testing.assert_array_equal(one, other)


def test_longest_run_s_is_the_age_of_the_oldest_run(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["image-classifier"]
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
    compute, gate, began = session.compute, threading.Event(), threading.Event()

    def wait(*args: Any) -> Any:
        began.set()
        gate.wait(30)
        return compute(*args)

    session.compute = wait
    images = np.zeros((1, 4, 4), np.uint8)
    first = threading.Thread(target=session.run, args=({"images": images},))
    first.start()
    began.wait(30)
    session.compute = compute
    session.run({"images": images})
    with pytest.raises(ValueError, match="images"):
        session.run({})
    before = session.longest_run_s()
    assert 0 < before <= session.longest_run_s()
    gate.set()
    first.join()
    assert session.longest_run_s() == 0


def test_onnxruntime_still_has_the_private_method_that_computes(sessions: dict[str, Session]) -> None:
    """`compute` calls `_sess.run` of the session, which onnxruntime's own `run` wraps."""
    inner = sessions["image-classifier"]._session
    inputs = example_inputs("image-classifier")
    names = [output.name for output in inner.get_outputs()]
    for private, public in zip(inner._sess.run(names, inputs, None), inner.run(names, inputs), strict=True):
        np.testing.assert_array_equal(private, public)
    assert "self._sess.run(output_names, input_feed, run_options)" in inspect.getsource(type(inner).run)


def test_model_in_the_format_of_onnxruntime_is_refused(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    """onnxruntime recognises its own format by a mark at byte 4, so the same bytes could be two models."""
    bundle = bundles["image-classifier"]
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
    content = (tmp_path / "model.ort").read_bytes()
    assert onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).get_inputs()
    with pytest.raises(BundleError, match=r"onnxruntime refuses the graph: .*protobuf"):
        Session(content, manifest=bundle.manifest, device="cpu")


def test_session_reads_no_weights_from_the_working_directory(
    bundles: dict[str, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles["image-classifier"]
    model = onnx.load_from_string(bundle.model)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    content = (tmp_path / "m.onnx").read_bytes()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]).get_inputs()
    with pytest.raises(BundleError, match=r"onnxruntime refuses the graph: .*External data path"):
        Session(content, manifest=bundle.manifest, device="cpu")


def test_session_computes_no_constant_beyond_the_limit(bundles: dict[str, Bundle]) -> None:
    """One of 4 TB would be computed while the session is created."""
    bundle = bundles["image-classifier"]
    model = onnx.load_from_string(bundle.model)
    size = onnx.numpy_helper.from_array(np.array([1 << 40]), "size")
    model.graph.initializer.append(size)
    model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["size"], ["huge"]))
    model.graph.node.append(onnx.helper.make_node("ReduceMax", ["huge"], ["largest"]))
    session = Session(model.SerializeToString(), manifest=bundle.manifest, device="cpu")
    assert session.provider == "CPUExecutionProvider"
