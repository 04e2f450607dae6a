"""The training command in a separate process: killed, interrupted, resumed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.tiny import RECIPES
from training.__main__ import main
from training.checkpoint import load_run, read_checkpoint, read_snapshot

ROOT = Path(__file__).parents[2]
Train = Callable[..., Path]


def start_training(*argv: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.training.tiny", *argv, "--threads", "1", "--out", os.fspath(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_snapshot(folder: Path, process: subprocess.Popen[str]) -> None:
    while not (folder / "optimizer.safetensors").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def same_weights(one: Path, other: Path) -> bool:
    a, b = (load_run(folder, RECIPES).model.state_dict() for folder in (one, other))
    return all(torch.equal(a[name], b[name]) for name in a)


def test_killed_run_resumes_to_weights_of_uninterrupted_run(train: Train, tmp_path: Path) -> None:
    argv = ("tiny-images", "--steps", "240", "--seed", "4")
    process = start_training(*argv, folder=tmp_path)
    wait_for_snapshot(tmp_path, process)
    # The kill arrives during a step.
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    assert not (tmp_path / "checkpoint.json").exists()
    assert main(["tiny-images", "--out", str(tmp_path), "--resume"], RECIPES) == 0
    uninterrupted = train(*argv)
    assert same_weights(tmp_path, uninterrupted)
    assert read_checkpoint(tmp_path).curves == read_checkpoint(uninterrupted).curves


def test_interrupted_run_is_saved_and_resumes_only_with_its_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = start_training("tiny-baseline", "--steps", "6000", folder=tmp_path)
    wait_for_snapshot(tmp_path, process)
    # The signal arrives some steps after the snapshot.
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert f"Resume with: python -m training tiny-baseline --out {tmp_path} --resume" in out
    assert "Traceback" not in err
    assert f"stopped at step {read_snapshot(tmp_path)[1]['progress']['step']:,}." in out
    for argv, message in (
        (["tiny-baseline", "--seed", "9"], "seed was 0, is 9"),
        (["tiny-baseline", "--steps", "7"], "steps was 6000, is 7"),
        (["tiny-baseline", "--threads", "2"], "threads was 1, is 2"),
        (["tiny-images"], "recipe was tiny-baseline, is tiny-images"),
    ):
        assert main([*argv, "--out", str(tmp_path), "--resume"], RECIPES) == 1
        assert message in capsys.readouterr().err


def test_resuming_finished_run_reports_its_metrics(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train("tiny-images")
    assert main(["tiny-images", "--out", str(folder), "--resume"], RECIPES) == 0
    out = capsys.readouterr().out
    assert "is already finished: test loss" in out
    assert out.endswith(" on tiny\n")


def test_checkpoint_records_requested_options(train: Train) -> None:
    checkpoint = read_checkpoint(train("tiny-images", "--steps", "12", "--seed", "5"))
    assert (checkpoint.recipe, checkpoint.steps, checkpoint.seed) == ("tiny-images", 12, 5)
    assert (checkpoint.device, checkpoint.threads) == ("cpu", 1)
    assert checkpoint.data == {"name": "tiny", "note": "Made from a seed.", "sha256": {"seed": "0" * 64}}
    assert read_checkpoint(train("tiny-images")).steps == RECIPES["tiny-images"].steps


def test_data_option_trains_for_steps_real(tmp_path: Path) -> None:
    (tmp_path / "seed").write_text("7")
    argv = ["tiny-baseline", "--data", str(tmp_path / "seed"), "--threads", "1", "--out", str(tmp_path / "run")]
    assert main(argv, RECIPES) == 0
    assert read_checkpoint(tmp_path / "run").steps == RECIPES["tiny-baseline"].steps_real


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "a recipe name is required; --list shows all"),
        (["tiny-imagse"], "unknown recipe 'tiny-imagse'; known are tiny-images, tiny-baseline"),
        (["tiny-baseline", "--steps", "0"], "argument --steps: invalid positive int value: '0'"),
        (["tiny-baseline", "--minutes", "nan"], "argument --minutes: invalid positive float value: 'nan'"),
        (["tiny-baseline", "--steps", "1", "--minutes", "1"], "not allowed with"),
        (["tiny-baseline", "--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_wrong_usage_exits_with_explanation(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(argv, RECIPES)
    assert exited.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data", "/no/such/file"], "/no/such/file"),
        (["--resume"], "nothing to resume"),
        pytest.param(
            ["--device", "cuda"],
            "PyTorch finds no GPU here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU"),
        ),
    ],
)
def test_failure_prints_one_line_and_creates_no_folder(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tiny-baseline", *argv, "--out", str(tmp_path / "run")], RECIPES) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_list_option_names_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("mnist-mlp", "cifar10-cnn", "mnist-gan"))
