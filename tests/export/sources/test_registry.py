"""Every way in has its options and its module, and neither needs torch to be listed."""

import importlib
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from export.sources.registry import WAYS, load, parse_source
from tests.export.sources.own_model import options, write_own_model

ROOT = Path(__file__).parents[3]


def test_the_process_that_reads_the_command_line_imports_neither_torch_nor_onnx() -> None:
    code = "import sys, export.__main__; print(*({'torch', 'onnx', 'transformers', 'keras'} & set(sys.modules)))"
    completed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert completed.stdout.strip() == ""


@pytest.mark.parametrize("command", WAYS)
def test_every_way_in_has_a_module_with_load(command: str) -> None:
    assert callable(importlib.import_module(WAYS[command].module).load)


def test_a_way_in_is_called_with_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    given: Namespace = options(write_own_model(tmp_path, module="own_registry_net"))
    loaded = load("module", given)
    assert loaded.source.name == "net"
    assert loaded.graph is None


def test_the_words_of_an_export_may_follow_others() -> None:
    words, command, options = parse_source(["bundles/a", "--seed", "2", "onnx", "m.onnx", "--golden", "g.npz"])
    assert (words, command) == (["bundles/a", "--seed", "2"], "onnx")
    assert (options.model, options.golden) == (Path("m.onnx"), Path("g.npz"))
    assert parse_source(["bundles/a"]) == (["bundles/a"], "", Namespace())
