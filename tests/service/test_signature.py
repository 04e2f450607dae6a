"""A signature counts only for the exact bytes of one manifest, by a trusted key."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.bundle import open_bundle
from service.errors import BundleError
from service.manifest import MANIFEST
from service.signature import SIGNATURE, TRUSTED_KEYS, Signature, parse_keys, trusted_keys, verify
from tests.service.bundles import write_bundle

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw().hex()
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw().hex()


def signature(manifest: bytes, key: str = PUBLIC) -> bytes:
    return Signature(key=key, signature=KEY.sign(manifest).hex()).model_dump_json().encode()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An unsigned bundle, and a service that trusts KEY."""
    monkeypatch.setenv(TRUSTED_KEYS, PUBLIC)
    return write_bundle(tmp_path, "image-classifier")


def write_signature(folder: Path, content: bytes) -> None:
    (folder / SIGNATURE).write_bytes(content)


def test_a_signed_bundle_is_opened(folder: Path) -> None:
    write_signature(folder, signature((folder / MANIFEST).read_bytes()))
    assert open_bundle(folder).manifest.version == folder.name


def test_an_unsigned_bundle_is_refused(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no signature.json; sign the bundle with python -m export.sign"):
        open_bundle(folder)
    assert open_bundle(folder, require_signature=False)


def test_without_trusted_keys_signatures_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_signature(folder, b"no signature")
    monkeypatch.setenv(TRUSTED_KEYS, "")
    assert open_bundle(folder)


def test_a_changed_manifest_is_refused_even_if_it_says_the_same(folder: Path) -> None:
    content = (folder / MANIFEST).read_bytes()
    write_signature(folder, signature(content))
    (folder / MANIFEST).write_bytes(content + b" ")
    with pytest.raises(BundleError, match=r"signature.json: it is no signature of this manifest"):
        open_bundle(folder)


def test_the_signature_of_another_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    other = write_bundle(tmp_path, "text-classifier")
    write_signature(folder, signature((other / MANIFEST).read_bytes()))
    with pytest.raises(BundleError, match=r"signature.json: it is no signature of this manifest"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Invalid JSON"),
        (b"{}", "field 'key': Field required"),
        (b'{"key": "00", "signature": "00"}', "field 'key': String should match pattern"),
        (b"{" + b" " * 2000 + b"}", "has 2002 bytes, expected at most 1024"),
        (signature(b"").replace(b'"key"', b'"name"'), "field 'key': Field required"),
    ],
)
def test_a_signature_that_cannot_be_read_is_refused(content: bytes, reason: str, folder: Path) -> None:
    write_signature(folder, content)
    with pytest.raises(BundleError, match=f"signature.json.*{reason}"):
        open_bundle(folder)


def test_a_link_is_no_signature(folder: Path) -> None:
    target = folder.parent / "elsewhere.json"
    target.write_bytes(signature((folder / MANIFEST).read_bytes()))
    (folder / SIGNATURE).symlink_to(target)
    with pytest.raises(BundleError, match=r"signature.json is not a regular file"):
        open_bundle(folder)


def test_only_trusted_keys_count() -> None:
    verify(b"manifest", signature(b"manifest"), frozenset({OTHER, PUBLIC}))
    with pytest.raises(ValueError, match=f"the key {PUBLIC[:12]}… is not trusted"):
        verify(b"manifest", signature(b"manifest"), frozenset({OTHER}))
    with pytest.raises(ValueError, match="no signature of this manifest by the key"):
        verify(b"manifest", signature(b"manifest", key=OTHER), frozenset({OTHER}))
    with pytest.raises(ValueError, match="no signature of this manifest by the key"):
        verify(b"Manifest", signature(b"manifest"), frozenset({PUBLIC}))


def test_keys_are_a_list_or_a_file(tmp_path: Path) -> None:
    assert parse_keys(" ") == frozenset()
    assert parse_keys(f"{PUBLIC}, {OTHER}") == {PUBLIC, OTHER}
    file = tmp_path / "keys"
    file.write_text(f"# of the release\n{PUBLIC}\n\n{OTHER}\n")
    assert parse_keys(str(file)) == {PUBLIC, OTHER}


@pytest.mark.parametrize("text", ["# nobody\n", "", "abc\n", f"{PUBLIC} {OTHER}\n"])
def test_a_file_without_valid_keys_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ValueError, match="expected one public key of 64 hex digits on each line"):
        parse_keys(str(tmp_path / "keys"))


@pytest.mark.parametrize("text", [PUBLIC[1:], f"{PUBLIC},", "/no/such/file", PUBLIC.upper().replace("0", "A")])
def test_what_is_neither_a_key_nor_a_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected public keys of 64 hex digits, or a readable file"):
        parse_keys(text)


def test_the_variable_counts_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUSTED_KEYS, raising=False)
    assert trusted_keys() == frozenset()
    monkeypatch.setenv(TRUSTED_KEYS.lower(), PUBLIC)
    assert trusted_keys() == {PUBLIC}


def test_keys_that_became_unreadable_open_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_signature(folder, signature((folder / MANIFEST).read_bytes()))
    monkeypatch.setenv(TRUSTED_KEYS, "/no/such/file")
    with pytest.raises(BundleError, match="EKIBEN_TRUSTED_KEYS: expected public keys"):
        open_bundle(folder)
