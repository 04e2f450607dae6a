"""`python -m export onnx`: sources of graphs from elsewhere, and refusals in one sentence.

Real scikit-learn models come in through skl2onnx: labels are those of `predict`, probabilities differ by 1e-5 at most.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load_file, save_file

from export.__main__ import main
from export.pipeline import export_model
from export.sources.onnx_file.source import load
from service.bundle import open_bundle
from tests.export.sources.onnx_file.graphs import (
    golden,
    linear,
    linear_case,
    mean_case,
    mean_of_steps,
    model_of,
    options,
    value,
    written,
)

COLUMNS = ", ".join(f'{{kind = "number", name = "{name}"}}' for name in "abcd")
TABLE = f'reader = {{kind = "table", columns = [{COLUMNS}]}}\n'
LABELS = 'head = {kind = "labels", labels = ["no", "yes"]}'


def test_tensors_are_read_off_the_graph(tmp_path: Path) -> None:
    loaded = load(options(written(tmp_path, linear()), golden(tmp_path, linear_case(9), linear_case(2))))
    source = loaded.source
    assert [(spec.name, spec.dtype, spec.shape) for spec in source.inputs] == [("X", "float32", ("batch", 4))]
    assert [spec.shape for spec in source.outputs] == [("batch",), ("batch", 3)]
    assert (source.name, source.reader.kind, source.head.kind) == ("model", "tensors", "tensors")
    assert (source.module, source.predict_float64) == (None, None)
    provenance = source.provenance
    assert (provenance.recipe, provenance.reference, provenance.opset) == ("onnx", "the given outputs", 17)
    assert sorted(provenance.data) == ["golden.safetensors", "model.onnx"]
    assert "torch" not in provenance.versions
    assert len(source.examples) == 11
    case = linear_case(3)
    np.testing.assert_allclose(source.predict({"X": case["X"]})["scores"], case["scores"], rtol=1e-5)


def test_free_axes_are_bounded_by_the_goldens_or_the_spec(tmp_path: Path) -> None:
    path, file = written(tmp_path, mean_of_steps()), golden(tmp_path, mean_case(5, 4), mean_case(3, 7))
    source = load(options(path, file)).source
    assert [spec.shape for spec in source.inputs] == [("batch", "time", 2)]
    assert (source.limits.axes["time"].min, source.limits.axes["time"].max) == (4, 7)
    spec = '[reader]\nkind = "tensors"\n[head]\nkind = "tensors"\n[limits.axes]\ntime = [1, 50]'
    source = load(options(path, file, spec, name="mean")).source
    assert source.limits.axes["time"].max == 50
    assert source.name == "mean"


def test_graph_that_was_exported_for_one_item_is_served_item_by_item(tmp_path: Path) -> None:
    model = linear(batch="batch")
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
        # As Keras and TensorFlow name tensors.
        renamed = f"serving/{tensor.name}:0"
        for node in model.graph.node:
            node.input[:] = [renamed if name == tensor.name else name for name in node.input]
            node.output[:] = [renamed if name == tensor.name else name for name in node.output]
        tensor.name = renamed
    cases = [{f"serving/{name}:0": array for name, array in linear_case(1).items()} for _ in range(12)]
    given = options(written(tmp_path, model), golden(tmp_path, *cases), name="one-item")
    manifest = export_model("onnx", given, tmp_path / "bundles", lambda stage: None)
    assert (manifest.limits.max_items, manifest.is_batched) == (1, False)
    bundle = open_bundle(tmp_path / "bundles" / "one-item" / manifest.version)
    assert set(bundle.golden[0].inputs) == {"serving/X:0"}


def test_text_inputs_and_outputs_are_served_as_they_are(tmp_path: Path) -> None:
    """safetensors has no texts, .npz has."""
    nodes = [helper.make_node("Concat", ["words", "words"], ["pairs"], axis=1)]
    shapes = {"words": ("n", 1), "pairs": ("n", 2)}
    inputs, outputs = ([value(name, TensorProto.STRING, *shapes[name])] for name in shapes)
    words = [np.array([[f"w{i}"] for i in range(size)]) for size in (7, 2)]
    cases = {f"words.{i}": array for i, array in enumerate(words)}
    cases |= {f"pairs.{i}": np.concatenate([array, array], 1) for i, array in enumerate(words)}
    np.savez(tmp_path / "golden.npz", **cases)
    source = load(options(written(tmp_path, model_of(nodes, inputs, outputs)), tmp_path / "golden.npz")).source
    assert source.inputs[0].dtype == source.outputs[0].dtype == "string"
    assert source.predict({"words": words[1]})["pairs"].tolist() == [["w0", "w0"], ["w1", "w1"]]


def without_label(case: dict[str, Any]) -> dict[str, Any]:
    return {name: array for name, array in case.items() if name != "label"}


def one_batch_size(folder: Path) -> tuple[Any, str]:
    file = golden(folder, linear_case(9), linear_case(9))
    return options(written(folder, linear()), file), "the axis 'batch' of input 'X' has the size 9 in every golden case"


def no_goldens(folder: Path) -> tuple[Any, str]:
    return options(written(folder, linear()), None), "--golden is missing"


def few_items(folder: Path) -> tuple[Any, str]:
    file = golden(folder, linear_case(4), linear_case(2))
    return options(written(folder, linear()), file), "holds 6 items, expected 8 or more"


def nan(folder: Path) -> tuple[Any, str]:
    case = linear_case(9)
    case["scores"][0, 0] = np.nan
    file = golden(folder, case, linear_case(2))
    return options(written(folder, linear()), file), r"'scores' has a value that is not finite at \[0, 0\]"


def wrong_golden(folder: Path) -> tuple[Any, str]:
    case = linear_case(9)
    case["scores"][4, 1] += 0.1
    file = golden(folder, case, linear_case(2))
    return options(
        written(folder, linear()), file
    ), r"case 0 does not come out of the graph: output 'scores' at \[4, 1\]"


def absent_output(folder: Path) -> tuple[Any, str]:
    file = golden(folder, without_label(linear_case(9)), without_label(linear_case(2)))
    return options(
        written(folder, linear()), file
    ), r"lacks the output 'label'; give it, or name the others in \[\[head"


def unknown_output(folder: Path) -> tuple[Any, str]:
    file = golden(folder, linear_case(9), linear_case(2))
    spec = '[reader]\nkind = "tensors"\n[head]\nkind = "tensors"\n[[head.outputs]]\nname = "z"\ndtype = "float32"\n'
    return options(
        written(folder, linear()), file, spec + "shape = [1]"
    ), r"\[\[head.outputs\]\] has 'z', the graph gives"


def other_output(folder: Path) -> tuple[Any, str]:
    file = golden(folder, linear_case(9), linear_case(2))
    spec = (
        '[reader]\nkind = "tensors"\n[head]\nkind = "tensors"\n[[head.outputs]]\nname = "scores"\ndtype = "float32"\n'
    )
    return options(
        written(folder, linear()), file, spec + 'shape = ["batch", 7]'
    ), r"scores is float32 \['batch', 7\], the graph gives float32 \[9, 3\]"


def empty_case(folder: Path) -> tuple[Any, str]:
    file = golden(folder, linear_case(9), linear_case(0))
    return options(written(folder, linear()), file), "holds no items in case 1"


def unknown_axis(folder: Path) -> tuple[Any, str]:
    file = golden(folder, mean_case(5, 4), mean_case(6, 7))
    spec = '[reader]\nkind = "tensors"\n[head]\nkind = "tensors"\n[limits.axes]\nsteps = [1, 9]'
    return options(
        written(folder, mean_of_steps()), file, spec
    ), r"\[limits.axes\] has 'steps'; the model has 'time' free"


def data_outside(folder: Path) -> tuple[Any, str]:
    """Weights in a file that does not lie beside the graph."""
    model = linear()
    [weight] = model.graph.initializer
    content = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, text in {"location": "../weights.bin", "offset": "0", "length": str(len(content))}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, text
    (folder / "inner").mkdir()
    (folder / "weights.bin").write_bytes(content)
    return options(
        written(folder / "inner", model), golden(folder, linear_case(9), linear_case(2))
    ), "is no ONNX graph with all its weights: .*outside"


def frozen(folder: Path) -> tuple[Any, str]:
    file = golden(folder, mean_case(5, 4), mean_case(6, 7))
    return options(written(folder, mean_of_steps(frozen=4)), file), "because its axis 'time' is frozen"


def one_size(folder: Path) -> tuple[Any, str]:
    file = golden(folder, mean_case(5, 4), mean_case(6, 4))
    return options(
        written(folder, mean_of_steps()), file
    ), "the axis 'time' of input 'x' has the size 4 in every golden"


def foreign_operator(folder: Path) -> tuple[Any, str]:
    model = linear()
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.node[0].domain = "com.example"
    return options(written(folder, model), golden(folder, linear_case(9))), "operator domain 'com.example', expected"


def archive(folder: Path) -> tuple[Any, str]:
    (folder / "model.onnx").write_bytes(b"PK\x03\x04 and so on")
    return options(folder / "model.onnx", golden(folder, linear_case(9))), "is a pickle or an archive"


def text_input(folder: Path) -> tuple[Any, str]:
    node = helper.make_node("Identity", ["words"], ["out"])
    inputs = [value("words", TensorProto.STRING, "n", 4), value("x", TensorProto.FLOAT, "n", 4)]
    copy = helper.make_node("Identity", ["x"], ["y"])
    outputs = [value("out", TensorProto.STRING, "n", 4), value("y", TensorProto.FLOAT, "n", 4)]
    cases = [{"numbers": linear_case(size)["X"], "y": linear_case(size)["X"]} for size in (9, 2)]
    spec = TABLE + 'head = {kind = "embedding"}'
    given = options(written(folder, model_of([node, copy], inputs, outputs)), golden(folder, *cases), spec)
    return given, r"the graph reads strings \('words'\), which only a table with a category of this name, or a reader "


REFUSALS: list[Callable[[Path], tuple[Any, str]]] = [
    one_batch_size,
    no_goldens,
    few_items,
    nan,
    wrong_golden,
    absent_output,
    unknown_output,
    other_output,
    empty_case,
    unknown_axis,
    data_outside,
    frozen,
    one_size,
    foreign_operator,
    archive,
    text_input,
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.__name__)
def test_model_that_cannot_come_in_is_refused(tmp_path: Path, refusal: Callable[[Path], tuple[Any, str]]) -> None:
    given, message = refusal(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        load(given)
    assert "\n" not in str(caught.value)


# scikit-learn


def sklearn_case(kind: str) -> tuple[Any, Any, Any]:
    """A fitted model, its graph, and its items."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    skl2onnx = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        GradientBoostingRegressor,
        RandomForestClassifier,
    )
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(1)
    x = rng.normal(size=(150, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(np.int64)
    model = {
        "logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        "forest": lambda: RandomForestClassifier(12, random_state=0),
        "boosted classifier": lambda: GradientBoostingClassifier(n_estimators=8, random_state=0),
        "boosted regressor": lambda: GradientBoostingRegressor(n_estimators=8, random_state=0),
        "forest of text labels": lambda: RandomForestClassifier(6, random_state=0),
        # Its labels are a constant of the graph, and no attribute.
        "network of text labels": lambda: MLPClassifier(4, tol=1, n_iter_no_change=2, random_state=0),
    }[kind]()
    if "text labels" in kind:
        y = np.array(["no", "yes"])[y]
    model.fit(x, x[:, 0] * 2 if "regressor" in kind else y)
    words = {} if "regressor" in kind else {"options": {"zipmap": False}}
    return model, skl2onnx.to_onnx(model, x[:1], **words), x


def sklearn_golden(folder: Path, model: Any, x: Any) -> Path:
    """What scikit-learn itself answers, for two batch sizes."""
    cases = []
    for items in (x, x[:3]):
        if hasattr(model, "predict_proba"):
            cases.append({"X": items, "probabilities": model.predict_proba(items).astype(np.float32)})
        else:
            cases.append({"X": items, "variable": model.predict(items).astype(np.float32).reshape(-1, 1)})
    return golden(folder, *cases)


@pytest.mark.parametrize(
    "kind", ["logistic regression", "forest", "boosted classifier", "boosted regressor", "forest of text labels"]
)
def test_scikit_learn_models_answer_as_scikit_learn_does(tmp_path: Path, kind: str) -> None:
    model, graph, x = sklearn_case(kind)
    spec = TABLE + ('head = {kind = "values", names = ["y"]}' if "regressor" in kind else LABELS)
    loaded = load(options(written(tmp_path, graph), sklearn_golden(tmp_path, model, x), spec))
    assert loaded.graph is not None
    session = ort.InferenceSession(loaded.graph, providers=["CPUExecutionProvider"])
    items = np.random.default_rng(2).normal(size=(200, 4)).astype(np.float32)
    (found,) = session.run(None, {"numbers": items})
    if "regressor" in kind:
        np.testing.assert_allclose(found[:, 0], model.predict(items), atol=1e-5)
        return
    np.testing.assert_allclose(found, model.predict_proba(items), atol=1e-5)
    assert model.classes_[found.argmax(1)].tolist() == model.predict(items).tolist()


def test_a_softmax_over_probabilities_is_refused(tmp_path: Path) -> None:
    model, graph, x = sklearn_case("forest")
    spec = TABLE + 'head = {kind = "labels", labels = ["no", "yes"], activation = "softmax"}'
    with pytest.raises(ValueError, match="holds probabilities already"):
        load(options(written(tmp_path, graph), sklearn_golden(tmp_path, model, x), spec))


def test_maps_of_scikit_learn_are_refused_with_the_way_out(tmp_path: Path) -> None:
    skl2onnx = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    model, _, x = sklearn_case("logistic regression")
    path = written(tmp_path, skl2onnx.to_onnx(model, x[:1]))
    with pytest.raises(ValueError, match="convert with zipmap=False"):
        load(options(path, sklearn_golden(tmp_path, model, x)))


# The command


def test_command_writes_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, linear())
    cases = [{"numbers": case["X"], "scores": case["scores"]} for case in (linear_case(40), linear_case(2))]
    file, spec = golden(tmp_path, *cases), tmp_path / "spec.toml"
    spec.write_text(TABLE + 'head = {kind = "labels", labels = ["x", "y", "z"]}')
    bundles = tmp_path / "bundles"
    words = [
        "onnx",
        str(path),
        "--golden",
        str(file),
        "--spec",
        str(spec),
        "--name",
        "linear",
        "--bundles",
        str(bundles),
    ]
    assert main(words) == 0, capsys.readouterr().err
    folder = bundles / "linear" / (bundles / "linear" / "current").read_text().strip()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["provenance"]["reference"] == "the given outputs"
    assert manifest["reader"]["kind"] == "table"
    card = (folder / "card.md").read_text()
    assert "PyTorch" not in card
    assert "given outputs" in card
    assert "PyTorch" not in (folder / "manifest.json").read_text()


def test_command_refuses_in_one_sentence_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, file = written(tmp_path, linear()), golden(tmp_path, linear_case(9), linear_case(2))
    arrays = load_file(file)
    arrays["scores"][0, 0] += 1
    save_file(arrays, file)
    assert main(["onnx", str(path), "--golden", str(file), "--bundles", str(tmp_path / "bundles")]) == 1
    errors = capsys.readouterr().err
    assert "does not come out of the graph" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("bundles/*"))


def test_text_labels_of_a_graph_are_exported(tmp_path: Path) -> None:
    model, graph, x = sklearn_case("forest of text labels")
    cases = {
        f"{name}.{number}": array
        for number, items in enumerate((x, x[:3]))
        for name, array in (
            ("X", items),
            ("label", model.predict(items)),
            ("probabilities", model.predict_proba(items).astype(np.float32)),
        )
    }
    np.savez(tmp_path / "golden.npz", **cases)
    given = options(written(tmp_path, graph), tmp_path / "golden.npz", name="forest")
    manifest = export_model("onnx", given, tmp_path / "bundles", lambda _: None)
    assert [(spec.name, spec.dtype) for spec in manifest.outputs] == [("label", "string"), ("probabilities", "float32")]
    assert manifest.provenance.reference == "the given outputs"
