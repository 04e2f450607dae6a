"""Whatever is done to a bundle, it is refused, and the sentence says which check found it."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save

from service.bundle import (
    GOLDEN,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MODEL,
    REQUESTS,
    TOKENIZER,
    RequestCase,
    current_version,
    open_bundle,
    pack_golden,
)
from service.errors import BundleError
from tests.service.bundles import FAMILIES, bundle_files, golden_cases, manifest_fields, onnx_model, write_bundle

FAMILY = "text-classifier"  # has every kind of file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path, FAMILY)


def refused(folder: Path, sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence) as caught:
        open_bundle(folder)
    assert str(caught.value).startswith(f"{folder.parent.name}/{folder.name}: ")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest without sealing it again."""
    content = json.loads((folder / MANIFEST).read_text())
    change(content)
    (folder / MANIFEST).write_text(json.dumps(content))


def reseal(root: Path, **fields: Any) -> Path:
    """A bundle whose version agrees with its content: only the meaning of a field can be wrong."""
    return write_bundle(root, FAMILY, **fields)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_written_is_what_is_read(family: str, tmp_path: Path) -> None:
    requests = (RequestCase(request={"text": "line\u2028separator, \x85 and \x1c"}, answer={"label": "駅弁"}),) * 2
    files = bundle_files(family, requests=requests)
    folder = write_bundle(tmp_path, family, files=files)
    bundle = open_bundle(folder)
    assert bundle.folder == folder
    assert bundle.model == files[MODEL]
    assert bundle.requests == requests
    assert bundle.manifest.version == folder.name == current_version(folder.parent)
    assert bundle.tokenizer == (files[TOKENIZER].decode() if TOKENIZER in files else None)
    assert len(bundle.golden) == len(golden_cases(family))
    for read, written in zip(bundle.golden, golden_cases(family), strict=True):
        for side in ("inputs", "outputs"):
            assert getattr(read, side).keys() == getattr(written, side).keys()
            for name, value in getattr(written, side).items():
                np.testing.assert_array_equal(getattr(read, side)[name], value, strict=True)


@pytest.mark.parametrize("name", [MODEL, GOLDEN, REQUESTS, TOKENIZER])
@pytest.mark.parametrize("at", [0, 0.5, 1])
def test_one_flipped_bit(folder: Path, name: str, at: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    (folder / name).write_bytes(content)
    refused(folder, f"{name} has sha256 .*…, the manifest says .*…")


@pytest.mark.parametrize("at", range(0, 1500, 97))
def test_one_flipped_bit_in_the_manifest(folder: Path, at: int) -> None:
    content = bytearray((folder / MANIFEST).read_bytes())
    at = next(i for i in range(at, len(content)) if not content[i : i + 1].isspace())
    content[at] ^= 1
    (folder / MANIFEST).write_bytes(content)
    refused(folder, "manifest.json")


@pytest.mark.parametrize("name", [MANIFEST, MODEL, GOLDEN, REQUESTS, TOKENIZER])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, f"cannot read {name}: No such file")


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_shorter_and_a_longer_file(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    refused(folder, f"{name} has {len(content) - 1} bytes, the manifest says {len(content)}")
    (folder / name).write_bytes(content + b"\0")
    refused(folder, f"{name} has {len(content) + 1} bytes, expected at most {len(content)}")


@pytest.mark.parametrize("name", [MANIFEST, MODEL])
def test_a_link_a_folder_and_a_pipe_are_no_files(folder: Path, name: str) -> None:
    real = folder.parent / name
    (folder / name).rename(real)
    (folder / name).symlink_to(real)
    refused(folder, f"{name} is not a plain file")
    (folder / name).unlink()
    (folder / name).mkdir()
    refused(folder, f"{name} is not a plain file")
    (folder / name).rmdir()
    os.mkfifo(folder / name)
    refused(folder, f"{name} is not a plain file")


@pytest.mark.parametrize(
    "name", ["../weights.onnx", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "a\0b", "-rf", ".hidden", "x" * 101, "a\n"]
)
def test_a_name_that_is_no_plain_name(folder: Path, name: str) -> None:
    rewrite(folder, lambda content: content["files"].update({name: content["files"][MODEL]}))
    refused(folder, "manifest.json: field 'files")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["tolerance"]["logits"].update(atol=9e-3), "manifest.json was changed: its content has version"),
        (lambda c: c["parameters"].update(labels=["food", "travel", "sport"]), "manifest.json was changed"),
        (lambda c: c["files"][MODEL].update(sha256="0" * 64), "manifest.json was changed"),
        (lambda c: c.update(version="0" * 12), "manifest.json was changed"),
        (lambda c: c.update(note="hello"), "field 'note': Extra inputs are not permitted"),
        (lambda c: c["limits"].update(max_rows=3), "field 'limits.max_rows': Extra inputs"),
        (lambda c: c.pop("tolerance"), "field 'tolerance': Field required"),
        (lambda c: c.update(format_version=2), "field 'format_version': Input should be 1"),
        (lambda c: c["tolerance"]["logits"].update(atol=1.0), r"field 'tolerance\.logits\.atol': .* less than"),
        (lambda c: c["tolerance"]["logits"].update(atol=float("nan")), r"field 'tolerance\.logits\.atol'"),
        (lambda c: c["tolerance"]["logits"].update(rtol=float("inf")), r"field 'tolerance\.logits\.rtol'"),
        (lambda c: c["tolerance"].pop("logits"), r"outputs and tolerances differ in \['logits'\]"),
        (lambda c: c["files"].pop(GOLDEN), r"files lack \['golden\.safetensors'\]"),
        (lambda c: c["files"].pop(TOKENIZER), r"files lack \['tokenizer\.json'\]"),
        (lambda c: c.update(task="classify"), "task is 'classify', a text-classifier serves 'sequence-predict'"),
        (lambda c: c["parameters"].update(labels=[]), r"field 'parameters\.text-classifier\.labels'"),
        (lambda c: c["inputs"].pop(), r"inputs are not those of this text-classifier: they differ in \['lengths'\]"),
        (lambda c: c["parameters"].update(family="oracle"), "field 'parameters'"),
        (lambda c: c["limits"].update(max_items=0), r"field 'limits\.max_items'"),
        (lambda c: c.update(name="../up"), "field 'name'"),
        (lambda c: c["files"][MODEL].update(sha256="0" * 63), r"field 'files\.model\.onnx\.sha256'"),
    ],
)
def test_a_changed_manifest(folder: Path, change: Callable[[dict[str, Any]], None], sentence: str) -> None:
    rewrite(folder, change)
    refused(folder, sentence)


def test_a_manifest_that_is_no_json(folder: Path) -> None:
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null"):
        (folder / MANIFEST).write_bytes(content)
        refused(folder, "manifest.json: field ''")


def test_a_huge_manifest_is_not_read(folder: Path) -> None:
    with (folder / MANIFEST).open("ab") as file:
        file.truncate(MAX_MANIFEST_BYTES * 1000)  # sparse
    refused(folder, f"manifest.json has {MAX_MANIFEST_BYTES * 1000} bytes, expected at most {MAX_MANIFEST_BYTES}")


def test_a_folder_of_another_name(folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(folder.parent / ("f" * 12))
    refused(moved, f"manifest.json is of tiny-texts/{folder.name}")
    other = tmp_path / "other" / folder.name
    other.parent.mkdir()
    moved.rename(other)
    refused(other, f"manifest.json is of tiny-texts/{folder.name}")


def test_the_graph_is_checked_after_the_hashes(tmp_path: Path) -> None:
    model = onnx_model(FAMILY)
    content = model.SerializeToString()
    refused(reseal(tmp_path, files=bundle_files(FAMILY, model=content[:-3])), "model.onnx: truncated")
    folder = reseal(tmp_path, provenance={**manifest_fields(FAMILY)["provenance"], "opset": 19})
    refused(folder, "model.onnx: opset 20, expected 19")


def with_golden(root: Path, tensors: dict[str, Any]) -> Path:
    return reseal(root, files={**bundle_files(FAMILY), GOLDEN: save(tensors)})


def test_goldens_that_prove_nothing(tmp_path: Path) -> None:
    refused(with_golden(tmp_path, {}), "golden.safetensors holds no case")
    tensors = pack_golden(golden_cases(FAMILY))
    broken = tensors | {"1/out/logits": np.full_like(tensors["1/out/logits"], np.nan)}
    refused(with_golden(tmp_path, broken), "golden.safetensors: 1/out/logits holds a value that is not finite")
    partial = {key: value for key, value in tensors.items() if key != "1/in/lengths"}
    refused(with_golden(tmp_path, partial), r"case 1 has inputs \['ids'\] and outputs")
    mute = {key: value for key, value in tensors.items() if not key.startswith("0/out/")}
    refused(with_golden(tmp_path, mute), r"case 0 has inputs .* and outputs \[\]")
    foreign = tensors | {"0/out/verdict": tensors["0/out/logits"]}
    refused(with_golden(tmp_path, foreign), "case 0 .*'verdict'")
    silent = {key: value for key, value in tensors.items() if not key.endswith("/out/probabilities")}
    refused(with_golden(tmp_path, silent), r"no case has the outputs \['probabilities'\]")
    rowless = tensors | {key: value[:0] for key, value in tensors.items() if key.startswith("1/")}
    refused(with_golden(tmp_path, rowless), "golden.safetensors: 1/out/.* is empty: it proves nothing")


@pytest.mark.parametrize("key", ["x/in/ids", "0/middle/ids", "ids", "0/in/a/b"])
def test_goldens_under_strange_keys(tmp_path: Path, key: str) -> None:
    refused(with_golden(tmp_path, {key: np.zeros(1, np.float32)}), "golden.safetensors: ")


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{]", b"\x10\0\0\0\0\0\0\0" + b"[" * 16])
def test_goldens_that_are_no_safetensors(tmp_path: Path, content: bytes) -> None:
    refused(reseal(tmp_path, files={**bundle_files(FAMILY), GOLDEN: content}), "golden.safetensors: ")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "line 1: "),
        (b'{"request": {}, "answer": {}}\n{"request": {}', "line 2: "),
        (b'{"request": {}, "answer": {}}\n\n', "line 2: "),
        (b'{"request": {}}\n', "line 1 is not"),
        (b'{"request": {}, "answer": {}, "note": 1}\n', "line 1 is not"),
        (b'{"request": [], "answer": {}}\n', "line 1 is not"),
        (b"[1]\n", "line 1"),
        (b"3\n", "line 1"),
        (b"\xff\n", "line 1: "),
        (b"[" * 100_000 + b"\n", "line 1: "),
    ],
)
def test_request_cases_that_cannot_be_read(tmp_path: Path, content: bytes, sentence: str) -> None:
    refused(reseal(tmp_path, files={**bundle_files(FAMILY), REQUESTS: content}), f"requests.jsonl: {sentence}")


def test_a_tokenizer_that_is_no_text(tmp_path: Path) -> None:
    refused(reseal(tmp_path, files={**bundle_files(FAMILY), TOKENIZER: b"\xff"}), "tokenizer.json: .*utf-8")


def test_the_current_version_is_a_version(folder: Path) -> None:
    current = folder.parent / "current"
    for content in (b"", b"../../../etc", b"\xff", folder.name.upper().encode() + b"0"):
        current.write_bytes(content)
        with pytest.raises(BundleError, match=r"tiny-texts: .*current"):
            current_version(folder.parent)
    current.unlink()
    with pytest.raises(BundleError, match="tiny-texts: no file `current`"):
        current_version(folder.parent)
    current.mkdir()
    with pytest.raises(BundleError, match="tiny-texts: `current` is not a plain file"):
        current_version(folder.parent)
    current.rmdir()
    os.mkfifo(current)  # reading it would wait for a writer
    with pytest.raises(BundleError, match="tiny-texts: `current` is not a plain file"):
        current_version(folder.parent)
    current.unlink()
    current.write_bytes(b"0" * 1000)
    with pytest.raises(BundleError, match="tiny-texts: `current` has 1000 bytes, expected at most 100"):
        current_version(folder.parent)


def test_values_are_frozen(folder: Path) -> None:
    bundle = open_bundle(folder)
    with pytest.raises(ValidationError, match="frozen"):
        bundle.manifest.name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.model = b""  # type: ignore[misc]
