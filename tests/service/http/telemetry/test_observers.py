"""What observes is what was asked for; what is missing is one line in the log."""

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from service.http.telemetry import observers, spans
from service.http.telemetry.observers import open_observers
from tests.service.collector import collecting

OFF: dict[str, Any] = {
    "access_log": 0.0, "trusted_proxies": (), "capture": "", "capture_rate": 1.0,
    "capture_fields": frozenset(), "capture_bytes": 1 << 20,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*spans.ENDPOINTS, *spans.PROTOCOLS, "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_observes_unless_asked_to() -> None:
    assert open_observers(**OFF) == ()


def test_each_observer_is_there_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        found = open_observers(**{**OFF, "access_log": 0.5, "capture": str(tmp_path / "new" / "folder")})
        assert [type(observer).__name__ for observer in found] == ["SpanObserver", "AccessLog", "Capture"]
        for observer in found:
            observer.close()


@pytest.mark.parametrize(("package", "group"), [("opentelemetry.exporter", "otel"), ("pyarrow", "batch")])
def test_a_missing_package_is_one_line(
    package: str, group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def find_spec(name: str) -> object | None:
        return None if name.startswith(package) else builtins.object()

    monkeypatch.setattr(spans, "find_spec", find_spec)
    monkeypatch.setattr("service.http.telemetry.capture.files.find_spec", find_spec)
    if group == "otel":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/v1/traces")
        assert open_observers(**OFF) == ()
    else:
        assert open_observers(**{**OFF, "capture": str(tmp_path)}) == ()
    (record,) = caplog.records
    assert f"`{group}` is not installed" in record.message


@pytest.mark.parametrize("parent", ["file", "/proc"])
def test_a_folder_that_cannot_be_written_is_one_line(
    parent: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert open_observers(**{**OFF, "capture": str(tmp_path / parent / "capture")}) == ()
    (record,) = caplog.records
    assert "no requests are captured: EKIBEN_CAPTURE=" in record.message


def test_without_a_collector_the_sdk_is_not_asked() -> None:
    assert observers.open_spans({}) is None
    assert "opentelemetry.exporter.otlp.proto.http.trace_exporter" not in vars(sys.modules[spans.__name__])
