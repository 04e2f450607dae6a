"""Settings come from the environment, and a bad one is named."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import PREFIX, Settings, SettingsError, load_settings, table


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith(PREFIX)]:
        monkeypatch.delenv(key)


def test_defaults_serve_a_checkout() -> None:
    settings = load_settings()
    assert (settings.bundles, settings.device, settings.max_body_bytes) == (Path("bundles"), "auto", 16 * 1024 * 1024)


def test_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKIBEN_BUNDLES", "/srv/bundles")
    monkeypatch.setenv("EKIBEN_DEVICE", "cuda")
    monkeypatch.setenv("EKIBEN_THREADS", "4")
    settings = load_settings()
    assert (settings.bundles, settings.device, settings.threads) == (Path("/srv/bundles"), "cuda", 4)


def test_names_every_bad_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKIBEN_DEVICE", "gpu")
    monkeypatch.setenv("EKIBEN_THREADS", "0")
    with pytest.raises(SettingsError, match=r"EKIBEN_DEVICE='gpu': .*'cuda'; EKIBEN_THREADS='0': .*greater"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EKIBEN_BUNDLES", "", "expected a folder"),
        ("EKIBEN_MAX_BATCH_ITEMS", "1000000", "less than or equal to 1024"),
        ("EKIBEN_MAX_BATCH_STEPS", "100000000", "less than or equal to 1048576"),
    ],
)
def test_what_can_never_work_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}='{value}': .*{said}"):
        load_settings()


def test_a_misspelt_setting_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKIBEN_TREADS", "4")
    with pytest.raises(SettingsError, match=r"no such setting: EKIBEN_TREADS; there are .*EKIBEN_THREADS"):
        load_settings()


def test_addresses_that_kubernetes_injects_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("EKIBEN_SERVICE_HOST", "EKIBEN_SERVICE_PORT_HTTP", "EKIBEN_PORT", "EKIBEN_PORT_3000_TCP_ADDR"):
        monkeypatch.setenv(key, "tcp://10.0.0.1:3000")
    assert load_settings() == Settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().threads = 9


def test_table_has_a_row_for_every_setting() -> None:
    rows = table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [PREFIX + name.upper() for name in Settings.model_fields]
    assert "None" not in table()


def test_the_engine_holds_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKIBEN_REQUEST_TIMEOUT_MS", "1500")
    monkeypatch.setenv("EKIBEN_QUEUE_ITEMS", "7")
    monkeypatch.setenv("EKIBEN_MAX_BATCH_ITEMS", "5")
    monkeypatch.setenv("EKIBEN_MAX_BATCH_STEPS", "99")
    limits = load_settings().limits
    assert (limits.timeout_s, limits.max_queue_items, limits.max_batch_items, limits.max_batch_steps) == (1.5, 7, 5, 99)


def test_the_repository_is_watched_as_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKIBEN_POLL_S", "0.5")
    monkeypatch.setenv("EKIBEN_HEARTBEAT_S", "7")
    settings = load_settings()
    assert (settings.poll_s, settings.heartbeat_s, settings.hang_s) == (0.5, 7.0, 60.0)
    monkeypatch.setenv("EKIBEN_HANG_S", "0")
    with pytest.raises(SettingsError, match="EKIBEN_HANG_S='0'"):
        load_settings()
