"""The last request for a model reaches every process that shares the folder."""

import os
from pathlib import Path

import pytest

from service.engine.process.desired_models import DesiredModels


def test_the_last_request_for_a_model_counts(tmp_path: Path) -> None:
    one, other = DesiredModels(tmp_path), DesiredModels(tmp_path)
    assert other.read() == {}
    first = one.write("a", "unload")
    assert other.read() == one.read() == {"a": first}
    second, third = other.write("a", "load"), one.write("b", "load")
    assert one.read() == {"a": second, "b": third}
    assert (first.action, second.action) == ("unload", "load")
    assert first.stamp != second.stamp


def test_a_model_is_forgotten(tmp_path: Path) -> None:
    desired = DesiredModels(tmp_path)
    desired.write("a", "unload")
    desired.discard("a")
    desired.discard("a")
    assert desired.read() == {}


def test_files_that_are_no_requests_are_passed_over(tmp_path: Path) -> None:
    desired = DesiredModels(tmp_path)
    written = desired.write("a", "load")
    (tmp_path / "desired" / ".b-7").write_text("load 7")
    (tmp_path / "desired" / "c").write_text("")
    assert desired.read() == {"a": written}


def test_without_a_folder_nothing_is_shared() -> None:
    desired = DesiredModels(None)
    assert desired.write("a", "unload").action == "unload"
    assert desired.read() == {}
    desired.discard("a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        DesiredModels(tmp_path).write("a", "load")
