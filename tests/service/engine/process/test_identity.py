"""Processes have names that are never used twice; the folder of a host is private and goes with its host."""

import mmap
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from service.engine.process.identity import is_alive, process_identity, shared_folder
from tests.service.hosts import wait_until


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_this_process_is_alive() -> None:
    me = process_identity(os.getpid())
    assert me.startswith(f"{os.getpid()}-")
    assert is_alive(me)
    assert not is_alive(f"{os.getpid()}-1"), "an earlier process with the same number"
    assert not is_alive(process_identity(1 << 30))
    assert process_identity(1 << 30) == f"{1 << 30}-0"


def test_a_process_that_has_ended_is_not_alive_even_before_it_is_reaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = process_identity(child.pid)
    assert is_alive(identity)
    child.kill()
    wait_until(lambda: not is_alive(identity))
    child.communicate()
    assert not is_alive(identity)


def test_the_folder_is_the_same_for_each_worker_and_private(temporary: Path) -> None:
    folder = shared_folder(os.getpid())
    assert folder is not None
    assert folder == shared_folder(os.getpid())
    assert folder.parent == temporary
    assert folder.stat().st_mode & 0o777 == 0o700
    assert shared_folder(os.getppid()) != folder
    assert folder.is_dir(), "its host is alive"


def test_folders_of_hosts_that_have_ended_are_removed(temporary: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    folder = shared_folder(child.pid)
    assert folder is not None
    (folder / "x").touch()
    child.communicate(b"\n")
    another = temporary / "ekiben-of-somebody"
    another.mkdir()
    mine = shared_folder(os.getpid())
    assert mine is not None
    assert not folder.exists()
    assert another.exists()


def test_a_folder_that_another_could_write_to_is_not_used(temporary: Path) -> None:
    folder = shared_folder(os.getpid())
    assert folder is not None
    folder.chmod(0o777)
    assert shared_folder(os.getpid()) is None
    folder.rmdir()
    (temporary / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(temporary / "elsewhere")
    assert shared_folder(os.getpid()) is None


def test_without_a_temporary_folder_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert shared_folder(os.getpid()) is None


def test_a_process_that_grows_stays_the_same() -> None:
    before = process_identity(os.getpid())
    with mmap.mmap(-1, 64 << 20):
        assert process_identity(os.getpid()) == before
    start_ticks = int(before.partition("-")[2])
    seconds = psutil.Process().create_time() - psutil.boot_time()
    assert start_ticks / os.sysconf("SC_CLK_TCK") == pytest.approx(seconds, abs=2)
