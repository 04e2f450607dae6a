"""Settings come from the environment, and errors name the invalid variables."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.engine.repository.registry import ALL_MODELS, ReadyWhen
from service.settings import PREFIX, Settings, SettingsError, load_settings, settings_table
from tests.service.key_files import write_keys
from tests.service.test_tls_files import write_tls


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith(PREFIX)]:
        monkeypatch.delenv(key)


def test_defaults_fit_a_checkout() -> None:
    settings = load_settings()
    assert (settings.bundles, settings.device, settings.max_body_bytes) == (Path("bundles"), "auto", 16 * 1024 * 1024)


def test_load_settings_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKIBEN_BUNDLES", "/srv/bundles")
    monkeypatch.setenv("EKIBEN_DEVICE", "cuda")
    monkeypatch.setenv("EKIBEN_THREADS", "4")
    settings = load_settings()
    assert (settings.bundles, settings.device, settings.threads) == (Path("/srv/bundles"), "cuda", 4)


def test_every_invalid_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKIBEN_DEVICE", "gpu")
    monkeypatch.setenv("EKIBEN_THREADS", "0")
    with pytest.raises(SettingsError, match=r"EKIBEN_DEVICE='gpu': .*'cuda'; EKIBEN_THREADS='0': .*greater"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("EKIBEN_BUNDLES", "", "expected a folder"),
        ("EKIBEN_MAX_BATCH_ITEMS", "1000000", "less than or equal to 1024"),
        ("EKIBEN_MAX_BATCH_STEPS", "100000000", "less than or equal to 1048576"),
    ],
)
def test_unusable_value_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}='{value}': .*{reason}"):
        load_settings()


def test_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKIBEN_TREADS", "4")
    with pytest.raises(SettingsError, match=r"no such setting: EKIBEN_TREADS; did you mean EKIBEN_THREADS\?; expected"):
        load_settings()


def test_kubernetes_service_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("EKIBEN_SERVICE_HOST", "EKIBEN_SERVICE_PORT_HTTP", "EKIBEN_PORT", "EKIBEN_PORT_3000_TCP_ADDR"):
        monkeypatch.setenv(key, "tcp://10.0.0.1:3000")
    assert load_settings() == Settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().threads = 9


def test_settings_table_has_a_row_for_every_setting() -> None:
    rows = settings_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [PREFIX + name.upper() for name in Settings.model_fields]
    assert "None" not in settings_table()


def test_limits_of_the_engine_come_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKIBEN_REQUEST_TIMEOUT_MS", "1500")
    monkeypatch.setenv("EKIBEN_QUEUE_ITEMS", "7")
    monkeypatch.setenv("EKIBEN_MAX_BATCH_ITEMS", "5")
    monkeypatch.setenv("EKIBEN_MAX_BATCH_STEPS", "99")
    limits = load_settings().limits
    assert (limits.timeout_s, limits.max_queue_items, limits.max_batch_items, limits.max_batch_steps) == (1.5, 7, 5, 99)


def test_intervals_come_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKIBEN_POLL_S", "0.5")
    monkeypatch.setenv("EKIBEN_HEARTBEAT_S", "7")
    settings = load_settings()
    assert (settings.poll_s, settings.heartbeat_s, settings.hang_s) == (0.5, 7.0, 60.0)
    monkeypatch.setenv("EKIBEN_HANG_S", "0")
    with pytest.raises(SettingsError, match="EKIBEN_HANG_S='0'"):
        load_settings()


def test_trusted_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().trusted_networks == ()
    monkeypatch.setenv("EKIBEN_TRUSTED_PROXIES", "10.0.0.0/8, 192.168.1.7 ,::1")
    assert [str(network) for network in load_settings().trusted_networks] == ["10.0.0.0/8", "192.168.1.7/32", "::1/128"]


@pytest.mark.parametrize("proxies", ["proxy.example", "10.0.0.1/8", "1.2.3"])
def test_a_trusted_proxy_that_is_no_network_is_refused(monkeypatch: pytest.MonkeyPatch, proxies: str) -> None:
    monkeypatch.setenv("EKIBEN_TRUSTED_PROXIES", proxies)
    with pytest.raises(SettingsError, match="EKIBEN_TRUSTED_PROXIES=") as caught:
        load_settings()
    assert repr(proxies) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        ("all", ReadyWhen(all_models=True)),
        ("any", ReadyWhen()),
        ("mnist-cnn", ReadyWhen(names=frozenset({"mnist-cnn"}))),
        ("mnist-cnn, news-lstm,", ReadyWhen(names=frozenset({"mnist-cnn", "news-lstm"}))),
    ],
)
def test_the_readiness_policy(monkeypatch: pytest.MonkeyPatch, value: str, policy: ReadyWhen) -> None:
    assert load_settings().readiness == ALL_MODELS
    monkeypatch.setenv("EKIBEN_READY_WHEN", value)
    assert load_settings().readiness == policy


@pytest.mark.parametrize("value", ["", " ,", "a b", "../x", "all,mnist-cnn", "mnist-cnn,any"])
def test_a_readiness_policy_that_names_no_models_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EKIBEN_READY_WHEN", value)
    with pytest.raises(SettingsError, match="EKIBEN_READY_WHEN="):
        load_settings()


def test_the_memory_of_a_load_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().load_memory_bytes == 0
    monkeypatch.setenv("EKIBEN_LOAD_MEMORY_BYTES", "-1")
    with pytest.raises(SettingsError, match="EKIBEN_LOAD_MEMORY_BYTES='-1'"):
        load_settings()


def test_trusted_keys_are_keys_or_a_file_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKIBEN_TRUSTED_KEYS", "ab" * 32)
    assert load_settings().trusted_keys == "ab" * 32
    monkeypatch.setenv("EKIBEN_TRUSTED_KEYS", "ab" * 31)
    with pytest.raises(SettingsError, match=r"EKIBEN_TRUSTED_KEYS=.*expected public keys of 64 hex digits"):
        load_settings()


def test_strangers_need_a_key_or_an_invitation(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    write_keys(keys, alice="scopes=infer")
    for host in ("127.0.0.1", "127.1.2.3", "::1"):
        Settings().check_address(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "fe80::1", "::ffff:10.0.0.1"):
        with pytest.raises(SettingsError, match=f"not on {host}: set EKIBEN_KEYS .* or EKIBEN_ALLOW_ANONYMOUS=true"):
            Settings().check_address(host)
        Settings(keys=keys).check_address(host)
        Settings(allow_anonymous=True).check_address(host)
    with pytest.raises(SettingsError, match="expected an IP address to listen on, got 'localhost'"):
        Settings().check_address("localhost")


def test_an_invalid_file_of_keys_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    for content, said in ((None, "No such file"), ("alice\n", "line 1: sha256= is missing"), ("", "at least one key")):
        if content is not None:
            path.write_text(content)
        monkeypatch.setenv("EKIBEN_KEYS", str(path))
        with pytest.raises(SettingsError, match=f"EKIBEN_KEYS='{path}': .*{said}"):
            load_settings()
    monkeypatch.setenv("EKIBEN_KEYS", "")
    with pytest.raises(SettingsError, match=r"EKIBEN_KEYS='': .*expected a file"):
        load_settings()


def test_hosts_and_origins_are_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load_settings().allowed_host_names, load_settings().allowed_origins) == (frozenset(), frozenset())
    monkeypatch.setenv("EKIBEN_ALLOWED_HOSTS", "API.example., 10.0.0.1 ,::1")
    monkeypatch.setenv("EKIBEN_CORS_ORIGINS", "https://app.example, http://localhost:5173,http://[::1]:80")
    settings = load_settings()
    assert settings.allowed_host_names == {"api.example", "10.0.0.1", "::1"}
    assert settings.allowed_origins == {"https://app.example", "http://localhost:5173", "http://[::1]:80"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EKIBEN_ALLOWED_HOSTS", "api.example:80"),
        ("EKIBEN_ALLOWED_HOSTS", "https://api.example"),
        ("EKIBEN_ALLOWED_HOSTS", "*.example"),
        ("EKIBEN_CORS_ORIGINS", "app.example"),
        ("EKIBEN_CORS_ORIGINS", "https://app.example/"),
        ("EKIBEN_CORS_ORIGINS", "https://App.example"),
        ("EKIBEN_CORS_ORIGINS", "https://*.example"),
        ("EKIBEN_CORS_ORIGINS", "null"),
    ],
)
def test_what_is_no_host_or_origin_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}=") as caught:
        load_settings()
    assert repr(value) in str(caught.value)


def test_files_of_tls_are_loaded_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = write_tls(tmp_path)
    monkeypatch.setenv("EKIBEN_TLS_CERT", str(files.cert))
    with pytest.raises(SettingsError, match="EKIBEN_TLS_CERT and EKIBEN_TLS_KEY: expected both or neither"):
        load_settings()
    monkeypatch.setenv("EKIBEN_TLS_KEY", str(files.key))
    monkeypatch.setenv("EKIBEN_TLS_CLIENT_CA", str(files.client_ca))
    assert load_settings().tls == files
    files.key.write_text("nonsense")
    with pytest.raises(SettingsError, match=f"TLS: {files.cert} and {files.key}: expected PEM files"):
        load_settings()
    monkeypatch.delenv("EKIBEN_TLS_CERT")
    monkeypatch.delenv("EKIBEN_TLS_KEY")
    with pytest.raises(SettingsError, match="EKIBEN_TLS_CLIENT_CA needs EKIBEN_TLS_CERT and EKIBEN_TLS_KEY"):
        load_settings()
