"""`python -m export.sign` signs bundles, and a service and a scoring job that trust its key load only those."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from export.sign import main
from service.engine.repository.repository import Repository
from service.manifest import MANIFEST
from service.scoring.job import ScoringError
from service.scoring.model import read_manifest
from service.signature import SIGNATURE, TRUSTED_KEYS
from tests.service.bundles import NAMES, write_bundle
from tests.service.engine.versions import loader

NAME = NAMES["image-classifier"]


def new_key(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["--new-key", str(path)]) == 0
    return capsys.readouterr().out.strip()


def test_a_service_loads_what_a_trusted_key_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, key, other = tmp_path / "bundles", tmp_path / "key.pem", tmp_path / "other.pem"
    root.mkdir()
    folder = write_bundle(root, "image-classifier")
    monkeypatch.setenv(TRUSTED_KEYS, new_key(key, capsys))
    new_key(other, capsys)
    repository = Repository(root, loader())

    def state() -> tuple[str, str]:
        repository.refresh()
        [summary] = repository.list_models()
        return summary["state"], str(summary["reason"])

    def score() -> None:
        read_manifest(root, NAME, folder.name)

    try:
        assert state() == (
            "FAILED",
            f"{NAME}/{folder.name}: there is no signature.json; sign the bundle with python -m export.sign",
        )
        with pytest.raises(ScoringError, match=r"there is no signature.json"):
            score()
        assert main([str(folder), "--key", str(other)]) == 0
        failed, reason = state()
        assert failed == "FAILED"
        assert "is not trusted" in reason
        with pytest.raises(ScoringError, match="is not trusted"):
            score()
        # The folder of the model stands for its current version.
        assert main([str(root / NAME), "--key", str(key)]) == 0
        assert state() == ("READY", "None")
        score()
    finally:
        repository.close()
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted([folder.name, "current"])


def test_a_changed_manifest_has_no_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bundle(tmp_path, "image-classifier")
    monkeypatch.setenv(TRUSTED_KEYS, new_key(tmp_path / "key.pem", capsys))
    assert main([str(folder), "--key", str(tmp_path / "key.pem")]) == 0
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ScoringError, match="no signature of this manifest"):
        read_manifest(tmp_path, NAME, folder.name)


def test_only_the_owner_reads_a_key_and_none_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "key.pem"
    public = new_key(path, capsys)
    assert len(bytes.fromhex(public)) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    assert main(["--new-key", str(path)]) == 1
    assert "File exists" in capsys.readouterr().err
    assert path.read_bytes() == content


def test_a_damaged_bundle_is_not_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bundle(tmp_path, "image-classifier")
    new_key(tmp_path / "key.pem", capsys)
    (folder / "model.onnx").write_bytes(b"")
    assert main([str(folder), "--key", str(tmp_path / "key.pem")]) == 1
    assert "model.onnx has 0 bytes" in capsys.readouterr().err
    assert not (folder / SIGNATURE).exists()


def test_other_keys_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bundle(tmp_path, "image-classifier")
    elliptic = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content, reason in ((elliptic, "expected an ed25519 key"), (b"key", "an unencrypted private key in PEM form")):
        (tmp_path / "key.pem").write_bytes(content)
        assert main([str(folder), "--key", str(tmp_path / "key.pem")]) == 1
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["bundle"], ["--key", "k"], ["bundle", "--new-key", "k"]])
def test_incomplete_commands_are_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "expected bundles with --key KEY, or --new-key KEY alone" in capsys.readouterr().err
