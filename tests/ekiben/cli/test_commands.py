"""Commands run their stage, and say what is missing."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ekiben.cli import commands
from ekiben.cli.commands import COMMANDS, CommandError, check_origin, run_command

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("name", "absent"), [("train", "torch"), ("export", "rich"), ("score", "onnxruntime")])
def test_a_missing_package_is_named_with_what_installs_it(name: str, absent: str) -> None:
    command = [sys.executable, "-S", "-m", "ekiben", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    groups = " ".join(f"--group {extra}" for extra in COMMANDS[name].extras)
    assert done.returncode == 1
    assert done.stderr == f"ekiben {name}: the package {absent} is missing; pip install {groups}, in {ROOT}\n"


def test_an_installed_command_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(module: str) -> None:
        raise ModuleNotFoundError(name="torch.nn")

    monkeypatch.setattr(commands.importlib, "import_module", absent)
    monkeypatch.setattr(commands, "check_origin", lambda package: None)
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    with pytest.raises(CommandError, match=r'^the package torch is missing; pip install "ekiben\[serve,train\]"$'):
        run_command("export", [])


def test_every_extra_exists() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert {extra for command in COMMANDS.values() for extra in command.extras} <= set(groups)


def test_a_missing_module_of_a_stage_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str) -> None:
        raise ModuleNotFoundError(name="service.nothing")

    monkeypatch.setattr(commands.importlib, "import_module", absent)
    with pytest.raises(ModuleNotFoundError):
        run_command("serve", [])


def test_another_package_of_the_name_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("print('not this one')")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; "
        "from ekiben.__main__ import main; sys.exit(main(['serve']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"ekiben serve: {tmp_path}/service is imported instead of {ROOT}/service; ")


def test_packages_beside_the_command_are_run() -> None:
    for package in ("training", "export", "service", "ekiben"):
        check_origin(package)


def test_a_command_returns_the_status_of_its_stage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_command("train", ["--list"]) == 0
    assert "mnist-cnn" in capsys.readouterr().out
    assert run_command("score", ["status", str(tmp_path)]) != 0
    with pytest.raises(SystemExit) as stopped:
        run_command("serve", ["--port", "0"])
    assert stopped.value.code == 2
    assert "ekiben serve: error: --port: expected 1 to 65535, got 0" in capsys.readouterr().err
