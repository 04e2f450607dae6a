"""Factories are called, programs are read, and whatever would run code from a file is refused."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from export.sources.module.factory import make_module, read_pt2


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("model.pt", "model.pt is a pickle"),
        ("weights.pth:Net", r"weights.pth is a pickle.*save_file"),
        ("net", "expected package.module:factory or a .pt2 file, not 'net'"),
        ("net.py", "not 'net.py'; did you mean 'net:CLASS'"),
        ("absent_module:Net", "absent_module:Net cannot be made: ModuleNotFoundError"),
        ("torch.nn:Absent", "torch.nn has no Absent"),
        ("torch.nn:Linear", "torch.nn:Linear cannot be made: TypeError"),
        ("builtins:dict", "builtins:dict gives a dict, expected a torch.nn.Module"),
    ],
)
def test_what_makes_no_module_is_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        make_module(name, {})
    assert "\n" not in str(error.value)


def test_a_file_in_place_of_a_module_is_spelt_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"a \.pt2 file, not 'net\.py:Net'; did you mean 'net:Net'\?$"):
        make_module("net.py:Net", {})


def test_keywords_and_parameters() -> None:
    made = make_module("torch.nn:Bilinear", {"in1_features": 2, "in2_features": 3, "out_features": 4})
    assert made.parameters == made.required == ("input1", "input2")
    assert made.source_file is None
    assert not made.module.training


def test_a_program_is_called_by_position_and_has_one_mode(tmp_path: Path) -> None:
    program = torch.export.export(
        nn.Linear(3, 2).eval(), (torch.zeros(4, 3),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    torch.export.save(program, tmp_path / "m.pt2")
    made = read_pt2(tmp_path / "m.pt2")
    assert made.by_position
    assert made.parameters == ("input",)
    assert made.module.eval()(torch.zeros(7, 3)).shape == (7, 2)


def test_a_program_with_objects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/data/constants/custom_obj_0", "x")
    with pytest.raises(ValueError, match="holds objects or compiled code"):
        read_pt2(path)


@pytest.mark.parametrize("pickled", [True, False])
def test_a_program_with_pickled_weights_is_refused(tmp_path: Path, pickled: bool) -> None:
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        config = {"config": {"w": {"use_pickle": pickled}}}
        archive.writestr("m/data/weights/model_weights_config.json", json.dumps(config))
    with pytest.raises(ValueError, match="holds objects or compiled code" if pickled else "cannot be read by torch"):
        read_pt2(path)


def test_other_files_are_no_programs(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"is no file of torch\.export\.save"):
        read_pt2(tmp_path / "m.pt2")
    with pytest.raises(ValueError, match="there is no file"):
        read_pt2(tmp_path / "absent.pt2")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import sys\nsys.exit('bye')", "cannot be made: SystemExit: bye"),
        ("def (", "cannot be made: SyntaxError: "),
        ("def Net():\n    raise RuntimeError('first\\nsecond')", "cannot be made: RuntimeError: first$"),
        ("def Net():\n    return None.weight", "cannot be made: AttributeError: 'NoneType' object has no attribute"),
    ],
)
def test_code_that_fails_is_one_sentence(
    code: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"own_failing_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"{name}:Net {sentence}"):
        make_module(f"{name}:Net", {})


def test_the_folder_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_moving_net.py").write_text("import os\nfrom torch.nn import Identity as Net\nos.chdir('/')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    make_module("own_moving_net:Net", {})
    assert Path.cwd() == tmp_path


def test_a_program_whose_parts_are_of_another_type_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/data/weights/model_weights_config.json", "[1]")
    with pytest.raises(ValueError, match="one of its parts lists no tensors"):
        read_pt2(tmp_path / "m.pt2")
