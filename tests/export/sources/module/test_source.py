"""A module from outside the project is a source, or is refused in one sentence with the way out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from export.sources.module.source import load
from tests.export.sources.own_model import CODE, options, write_own_model


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.syspath_prepend(tmp_path)
    return write_own_model(tmp_path, module="own_source_net")


def test_the_source_answers_what_the_module_answers(words: list[str], tmp_path: Path) -> None:
    source = load(options(words)).source
    assert (source.name, source.head.kind, source.reader.kind) == ("net", "labels", "image")
    assert source.labels == ("ant", "bee", "cat")
    assert [spec.name for spec in source.outputs] == ["logits", "probabilities"]
    assert source.provenance.metrics == {"test_accuracy": 1.0}
    assert set(source.provenance.data) == {"net.safetensors", "own_source_net.py", "examples.npz", "spec.toml"}
    namespace: dict[str, Any] = {}
    exec(CODE, namespace)
    net = namespace["Net"]()
    net.load_state_dict(load_file(tmp_path / "net.safetensors"))
    images = source.examples.inputs["images"]
    with torch.no_grad():
        expected = net((torch.from_numpy(images).unsqueeze(1) / 255 - 0.5) / 0.25).numpy()
    np.testing.assert_array_equal(source.predict({"images": images})["logits"], expected)
    assert source.predict_float64 is not None
    assert source.predict_float64({"images": images})["logits"].dtype == np.float64


def test_a_missing_spec_names_the_command_that_writes_one(words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"--spec is missing.*python -m export inspect"):
        load(options(words[:-2]))


def test_absent_weights_are_refused_with_the_way_out(words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"--weights is missing.*save_file"):
        load(options([words[0], *words[3:]]))


def test_wrong_weights_name_the_first_key(words: list[str], tmp_path: Path) -> None:
    weights = load_file(tmp_path / "net.safetensors")
    save_file({"other": weights["layers.1.bias"]}, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"lacks 'layers.1.weight' for Net \(4 missing, 1 unexpected\)"):
        load(options(words))


def test_a_head_of_other_labels_names_both_shapes(words: list[str], tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(spec.read_text().replace('"cat"]', '"cat", "dog"]'))
    with pytest.raises(ValueError, match=r"logits of the model has the shape \[2, 3\].*makes it \[2, 4\]"):
        load(options(words))


def test_pictures_of_another_size_name_the_axis(words: list[str], tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(spec.read_text().replace("height = 4", "height = 8"))
    with pytest.raises(ValueError, match=r"examples.npz: pictures have a height of 4, \[reader\] height is 8"):
        load(options(words))


def test_a_free_axis_that_no_example_exercises_is_named(words: list[str], tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(spec.read_text().replace("height = 4", "height = [2, 8]"))
    with pytest.raises(ValueError, match="the one size 4 along the free axis 'height'; expected two sizes"):
        load(options(words))


def test_keywords_of_the_factory_are_in_the_spec(words: list[str], tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(f"{spec.read_text()}\n[factory]\nhidden = 7\n")
    with pytest.raises(ValueError, match=r"layers.1.weight has the shape \[6, 20\], the module's has \[7, 20\]"):
        load(options(words))


def test_a_forward_that_needs_more_than_the_reader_gives(words: list[str], tmp_path: Path) -> None:
    code = (tmp_path / "own_source_net.py").read_text().replace("def forward(self, x)", "def forward(self, x, mask)")
    (tmp_path / "own_masked_net.py").write_text(code)
    with pytest.raises(ValueError, match="forward needs 'mask', which the reader image does not give; it gives x"):
        load(options(["own_masked_net:Net", *words[1:]]))


def test_a_module_that_halves_its_pictures_is_told_what_to_declare(words: list[str], tmp_path: Path) -> None:
    forward = "self.layers[0](nn.functional.interpolate(nn.functional.max_pool2d(x, 4), scale_factor=4) + x)"
    (tmp_path / "own_halving_net.py").write_text(CODE.replace("self.layers(x)", f"{forward}[:, :2]"))
    arrays = {f"x.{i}" if i else "x": np.full((9, 8 + 4 * i, 8), i, np.uint8) for i in range(2)}
    np.savez(tmp_path / "examples.npz", **arrays)
    spec = 'reader = { kind = "image", height = [8, 32], width = 8, mode = "L" }\nhead = { kind = "tensors" }\n'
    (tmp_path / "spec.toml").write_text(spec)
    with pytest.raises(ValueError, match=r"fails at the height 9, .* say \[limits.multiple_of\] height = 4: "):
        load(options(["own_halving_net:Net", *words[1:]]))
    (tmp_path / "spec.toml").write_text(f"{spec}[limits.multiple_of]\nheight = 4\n")
    assert load(options(["own_halving_net:Net", *words[1:]])).source.limits.axes["height"].multiple_of == 4


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mean": self.linear(features), "sum": features.sum(1)}


def test_a_program_of_torch_export_needs_neither_factory_nor_spec(tmp_path: Path) -> None:
    module = TwoOutputs().eval()
    dynamic = ({0: torch.export.Dim("batch", min=1, max=64)},)
    torch.export.save(torch.export.export(module, (torch.zeros(4, 3),), dynamic_shapes=dynamic), tmp_path / "m.pt2")
    x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    np.savez(tmp_path / "examples.npz", features=x)
    source = load(options([str(tmp_path / "m.pt2"), "--examples", str(tmp_path / "examples.npz")])).source
    assert [(spec.name, spec.shape) for spec in source.inputs] == [("features", ("batch", 3))]
    assert [(spec.name, spec.shape) for spec in source.outputs] == [("mean", ("batch", 2)), ("sum", ("batch",))]
    with torch.no_grad():
        expected = module(torch.from_numpy(x))
    np.testing.assert_array_equal(source.predict({"features": x})["sum"], expected["sum"].numpy())


def test_a_program_of_one_batch_size_is_refused(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(TwoOutputs().eval(), (torch.zeros(4, 3),)), tmp_path / "m.pt2")
    np.savez(tmp_path / "examples.npz", features=np.eye(16, 3, dtype=np.float32))
    with pytest.raises(ValueError, match=r"the model fails on the first examples \(features \[2, 3\]\)"):
        load(options([str(tmp_path / "m.pt2"), "--examples", str(tmp_path / "examples.npz")]))
