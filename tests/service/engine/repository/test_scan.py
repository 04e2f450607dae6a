"""What a look at the folder of bundles sees, and that it sees every change."""

import os
from pathlib import Path

import pytest

from service.engine.repository.scan import look, model_names
from tests.service.bundles import write_bundle


def test_models_are_the_folders_whose_names_a_model_may_have(tmp_path: Path) -> None:
    for name in ("b-2", "a", "m" * 64, ".draft", "lost+found", "Mine", "m" * 65):
        (tmp_path / name).mkdir()
    (tmp_path / "README").write_text("")
    assert model_names(tmp_path) == (["a", "b-2", "m" * 64], ["Mine", "lost+found", "m" * 65])
    with pytest.raises(FileNotFoundError):
        model_names(tmp_path / "nowhere")


def test_equal_looks_have_equal_stamps(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "image-classifier")
    found = look(folder.parent)
    assert (found.version, found.problem) == (folder.name, None)
    assert look(folder.parent) == found


def test_every_change_is_seen(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "image-classifier")
    stamps = [look(folder.parent).stamp]

    def changed() -> bool:
        stamps.append(look(folder.parent).stamp)
        return stamps[-1] not in stamps[:-1]

    (folder / "model.onnx").write_bytes(b"shorter")
    assert changed()
    os.utime(folder / "manifest.json", ns=(1, 1))
    assert changed()
    (folder / "requests.jsonl").unlink()
    assert changed()
    copy = folder.parent / "copy"
    copy.write_text(folder.name + "\n")
    copy.replace(folder.parent / "current")
    assert changed()
    (folder.parent / "current").unlink()
    assert changed()


def test_a_link_to_current_is_followed(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "current").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("0123456789ab")
    before = look(tmp_path / "m")
    (tmp_path / "new").write_text("ba9876543210")
    (tmp_path / "new").replace(tmp_path / "elsewhere")
    after = look(tmp_path / "m")
    assert (before.version, after.version) == ("0123456789ab", "ba9876543210")
    assert before.stamp != after.stamp


def test_problems_are_told(tmp_path: Path) -> None:
    found = look(tmp_path / "m")
    assert found.version is None
    assert "no file `current`" in (found.problem or "")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "current").write_text("0123456789ab")
    assert look(tmp_path / "m").version == "0123456789ab", "what it names is opened, not looked at"
