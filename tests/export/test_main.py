"""The command line: exit status and messages."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from export.__main__ import main
from export.spec import read_spec
from tests.export.sources.own_model import write_own_model

ROOT = Path(__file__).parents[2]


def test_a_refused_run_is_printed_with_its_reason_and_exit_status_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "export", str(tmp_path / "nothing"), "--bundles", str(tmp_path / "bundles")]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 1
    assert "nothing: refused: " in completed.stderr
    assert "there is no checkpoint.json" in completed.stderr
    assert "Traceback" not in completed.stderr
    assert not (tmp_path / "bundles").exists()


def test_jobs_must_be_a_positive_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["runs/any", "--jobs", "0"])
    assert exit_.value.code == 2
    assert "--jobs 0: expected 1 or more" in capsys.readouterr().err


def test_a_file_in_place_of_a_run_names_the_command_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.pth").touch()
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path / "model.pth")])
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert "model.pth is a file, expected a folder that training wrote; `python -m export module --help`" in said


def export(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "export", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_a_module_from_outside_is_refused_in_one_sentence_and_nothing_is_written(tmp_path: Path) -> None:
    words = write_own_model(tmp_path, module="own_main_net")
    (tmp_path / "spec.toml").write_text((tmp_path / "spec.toml").read_text().replace("width", "widht"))
    completed = export("module", *words, "--bundles", str(tmp_path / "bundles"), cwd=tmp_path)
    assert completed.returncode == 1
    refusal = completed.stderr.splitlines()[-1]
    assert refusal.startswith("own_main_net:Net: refused: ")
    assert "[reader] has no key 'widht'; did you mean 'width'?" in refusal
    assert "Traceback" not in completed.stderr
    assert not (tmp_path / "bundles").exists()


def test_an_interrupt_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    words = write_own_model(tmp_path, module="own_waiting_net")
    code = "import pathlib, time\npathlib.Path('started').touch()\ntime.sleep(9999)"
    (tmp_path / "own_waiting_net.py").write_text(code)
    command = [sys.executable, "-m", "export", "module", *words]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # The tests may be a job in the background, where interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,  # noqa: PLW1509 - no threads here
    )
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.1)
    # As a terminal does it, to the processes of both.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines() == ["interrupted: what was not finished is not there"]
    assert not list(tmp_path.glob("bundles*"))


@pytest.mark.parametrize("command", ["module", "onnx", "hf", "keras"])
def test_a_way_in_without_its_model_is_wrong_usage(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command])
    assert exit_.value.code == 2
    assert f"usage: python -m export {command}" in capsys.readouterr().err


def test_inspect_writes_a_spec_and_says_what_it_saw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_own_model(tmp_path, module="own_seen_net")
    spec = tmp_path / "seen.toml"
    assert main(["inspect", str(tmp_path / "examples.npz"), "--output", str(spec)]) == 0
    assert read_spec(spec).reader.kind == "image"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "x uint8 [40, 4, 5]" in captured.err
    assert main(["inspect", str(tmp_path / "examples.npz")]) == 0
    assert capsys.readouterr().out == spec.read_text()


def test_inspect_refuses_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "absent.onnx")]) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'absent.onnx'}: there is no such file\n"
    for name, config in {"a.keras": {"config": {"layers": ["a"]}}, "b.keras": {"config": {"layers": None}}}.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("config.json", json.dumps(config))
        assert main(["inspect", str(tmp_path / name)]) == 1
        assert re.fullmatch(f"{tmp_path / name}: TypeError: .*\n", capsys.readouterr().err)


def test_the_help_lists_every_way_in(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"\n  {command} " in printed for command in ("module", "onnx", "hf", "keras", "inspect"))
