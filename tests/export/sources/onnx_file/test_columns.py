"""A scikit-learn pipeline that takes a table column by column is served as a table, with the categories as texts."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from export.inspection.graphs import inspect_onnx
from export.sources.onnx_file.columns import draft_table
from export.sources.onnx_file.source import load
from tests.export.sources.onnx_file.graphs import options, written

REGIONS, PLANS = ("north", "south", "west"), ("b", "a")
LABELS = 'head = { kind = "labels", labels = ["goes", "stays"] }\n'
SPEC = f"""{LABELS}
[reader]
kind = "table"
columns = [
    {{ kind = "number", name = "age" }},
    {{ kind = "category", name = "region", values = ["north", "south", "west"] }},
    {{ kind = "number", name = "size" }},
    {{ kind = "category", name = "plan", values = ["b", "a"] }},
]
"""


@pytest.fixture(scope="module")
def pipeline() -> tuple[Any, Any, dict[str, Any]]:
    """A fitted pipeline, its graph, and its columns [items, 1]."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    skl2onnx = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "age": rng.uniform(0, 90, (120, 1)).astype(np.float32),
        "region": rng.choice(REGIONS, (120, 1)),
        "size": rng.normal(size=(120, 1)).astype(np.float32),
        "plan": rng.choice(PLANS, (120, 1)),
    }
    labels = np.where((columns["age"] > 40) ^ (columns["region"] == "north"), "goes", "stays")[:, 0]
    parts = [("numbers", StandardScaler(), [0, 2]), ("categories", OneHotEncoder(), [1, 3])]
    model = make_pipeline(ColumnTransformer(parts), LogisticRegression()).fit(joined(columns), labels)
    types = [
        (name, (StringTensorType if array.dtype.kind == "U" else FloatTensorType)([None, 1]))
        for name, array in columns.items()
    ]
    return model, skl2onnx.to_onnx(model, initial_types=types, options={"zipmap": False}, target_opset=20), columns


def joined(columns: dict[str, Any]) -> Any:
    return np.concatenate([array.astype(object) for array in columns.values()], axis=1)


def write_golden(folder: Path, model: Any, columns: dict[str, Any]) -> Path:
    arrays = {}
    for number, count in enumerate((120, 9)):
        rows = {name: array[:count] for name, array in columns.items()}
        arrays |= {f"{name}.{number}": array for name, array in rows.items()}
        arrays[f"probabilities.{number}"] = model.predict_proba(joined(rows)).astype(np.float32)
    np.savez(folder / "golden.npz", **arrays)
    return folder / "golden.npz"


@pytest.mark.parametrize("spec", [SPEC, ""], ids=["declared", "read off the graph"])
def test_columns_are_those_of_a_table(spec: str, pipeline: tuple[Any, Any, dict[str, Any]], tmp_path: Path) -> None:
    model, graph, columns = pipeline
    loaded = load(options(written(tmp_path, graph), write_golden(tmp_path, model, columns), spec))
    source = loaded.source
    reader: Any = source.reader
    assert (reader.kind, source.head.kind, source.labels) == ("table", "labels", ("goes", "stays"))
    assert [(column.kind, column.name) for column in reader.columns] == [
        ("number", "age"), ("category", "region"), ("number", "size"), ("category", "plan"),
    ]  # fmt: skip
    assert [column.values for column in reader.categories] == [REGIONS, PLANS if spec else ("a", "b")]
    numbers = np.concatenate([columns["age"], columns["size"]], axis=1)
    codes = [[column.index[str(value)] for [value] in columns[column.name]] for column in reader.categories]
    inputs = {"numbers": numbers, "categories": np.array(codes).T}
    expected = model.predict_proba(joined(columns))
    assert loaded.graph is not None
    [found] = ort.InferenceSession(loaded.graph, providers=["CPUExecutionProvider"]).run(None, inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(source.predict(inputs)["probabilities"], expected, atol=1e-5)


def test_inspect_drafts_the_table(pipeline: tuple[Any, Any, dict[str, Any]], tmp_path: Path) -> None:
    drafted = tomllib.loads(inspect_onnx(written(tmp_path, pipeline[1])).spec)
    assert drafted["head"] == {"kind": "labels", "labels": ["goes", "stays"]}
    assert drafted["reader"]["columns"][1] == {"kind": "category", "name": "region", "values": list(REGIONS)}


def test_texts_that_are_no_category_are_refused(pipeline: tuple[Any, Any, dict[str, Any]], tmp_path: Path) -> None:
    model, graph, columns = pipeline
    spec = SPEC.replace(
        '{ kind = "category", name = "plan", values = ["b", "a"] }', '{ kind = "number", name = "plan" }'
    )
    with pytest.raises(ValueError, match=r"numbers are .*, expected numbers"):
        load(options(written(tmp_path, graph), write_golden(tmp_path, model, columns), spec))
    spec = SPEC.replace('["b", "a"]', '["b"]')
    with pytest.raises(ValueError, match="column 'plan' has the value 'a', expected one of b"):
        load(options(written(tmp_path, graph), write_golden(tmp_path, model, columns), spec))


def test_a_graph_whose_values_are_unknown_drafts_nothing() -> None:
    encoder = helper.make_node("OneHotEncoder", ["a"], ["c"], domain="ai.onnx.ml", cats_strings=["x", "y"])
    graph = helper.make_graph([encoder], "g", [], [])
    drafted = draft_table(graph, {"a": "string", "b": "float32"})
    assert drafted is not None
    assert drafted["head"] == {"kind": "tensors"}
    for columns in ({"a": "string"}, {"a": "string", "b": "string"}, {"a": "string", "b": "int64"}):
        assert draft_table(graph, columns) is None
