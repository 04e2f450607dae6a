"""What `ekiben inspect` prints of a bundle."""

from pathlib import Path

import pytest

from ekiben.cli.report import describe_bundle, signature_state
from export.sign import create_key, read_key, sign
from service.bundle import open_bundle
from service.manifest import MANIFEST
from service.signature import SIGNATURE, TRUSTED_KEYS
from tests.service.bundles import FAMILIES, write_bundle


@pytest.mark.parametrize("family", FAMILIES)
def test_the_report_has_the_facts_of_the_manifest(family: str, tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path, family))
    manifest = bundle.manifest
    facts: dict[str, list[str]] = {}
    title, summary, blank, *lines = describe_bundle(bundle, signature="none").splitlines()
    for line in lines:
        facts.setdefault(line[:12].strip(), []).append(line[12:])
    assert (title, summary, blank) == (f"{manifest.name} {manifest.version}", manifest.summary, "")
    assert facts["answers"] == [f"POST /{manifest.task} ({manifest.pair})"]
    assert all(spec.name in facts["inputs"][0] for spec in manifest.inputs)
    assert [line.partition(":")[0] for line in facts["parity"]] == list(manifest.tolerance)
    assert facts["goldens"] == [f"{len(bundle.golden)} of tensors, {len(bundle.requests)} of requests"]
    assert facts["signature"] == ["none"]
    assert ("labels" in facts) == bool(manifest.labels)


def test_the_signature_is_checked_and_its_key_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path / "bundles", "image-classifier")
    monkeypatch.delenv(TRUSTED_KEYS, raising=False)
    assert signature_state(folder) == "none"
    key = create_key(tmp_path / "key.pem")
    sign(folder, read_key(tmp_path / "key.pem"))
    assert signature_state(folder) == f"by {key}, which EKIBEN_TRUSTED_KEYS does not have"
    monkeypatch.setenv(TRUSTED_KEYS, key)
    assert signature_state(folder) == f"by {key}, which EKIBEN_TRUSTED_KEYS has"
    monkeypatch.setenv(TRUSTED_KEYS, "nothing")
    assert signature_state(folder).startswith(f"by {key}; EKIBEN_TRUSTED_KEYS: expected public keys")
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes() + b"\n")
    assert signature_state(folder).startswith("invalid: it is no signature of this manifest")
    (folder / SIGNATURE).write_text("{}")
    assert signature_state(folder).startswith("invalid: ")
