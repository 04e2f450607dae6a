"""Each worker has one GPU of those that CUDA_VISIBLE_DEVICES leaves."""

from pathlib import Path

import pytest

from service.engine.gpu.visible import gpu_of_worker, visible_gpus


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        ("1", ["1"]),
        ("2, 0", ["2", "0"]),
        ("GPU-8932f937,MIG-5c89852c-d268-c3f3", ["GPU-8932f937", "MIG-5c89852c-d268-c3f3"]),
    ],
)
def test_the_variable_goes_before_the_machine(
    value: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nvidia0").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus(tmp_path) == expected


def test_without_the_variable_all_gpus_are_numbered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(tmp_path) == []
    for name in ("nvidia0", "nvidia2", "nvidia10", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus(tmp_path) == ["0", "1", "2"]


def test_workers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,MIG-1")
    assert [gpu_of_worker(index) for index in range(4)] == ["3", "MIG-1", "3", "MIG-1"]


@pytest.mark.parametrize("value", ["", "2"])
def test_with_one_gpu_or_none_nothing_is_chosen(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert gpu_of_worker(1) is None
