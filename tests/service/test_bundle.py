"""Every corruption of a bundle is refused, and the message names the failed check."""

import dataclasses
import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pytest
from pydantic import ValidationError
from safetensors.numpy import save

from service.bundle import (
    MAX_BUNDLE_BYTES,
    MAX_FILE_BYTES,
    MAX_GOLDEN_CASES,
    MAX_GOLDEN_HEADER_BYTES,
    MAX_GOLDEN_ROWS,
    MAX_MANIFEST_BYTES,
    MAX_OTHER_FILE_BYTES,
    MAX_REQUESTS,
    MAX_TOKEN_CASES,
    GoldenCase,
    RequestCase,
    current_version,
    open_bundle,
    pack_golden,
    read_distributions,
    version_folder,
)
from service.errors import BundleError
from service.manifest import DISTRIBUTIONS, GOLDEN, MANIFEST, MAX_FILES, MODEL, REQUESTS, TOKENIZER, TOKENS, Manifest
from service.signature import SIGNATURE, TRUSTED_KEYS
from tests.service.bundles import FAMILIES, bundle_files, golden_cases, manifest_fields, onnx_model, write_bundle
from tests.service.distributions import distribution_files, distributions

FAMILY = "text-classifier"  # the family with every kind of file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path, FAMILY)


def assert_refused(folder: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(folder)
    assert str(caught.value).startswith(f"{folder.parent.name}/{folder.name}: ")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest without updating its version."""
    content = json.loads((folder / MANIFEST).read_text())
    change(content)
    (folder / MANIFEST).write_text(json.dumps(content))


def write_consistent(root: Path, **fields: Any) -> Path:
    """Write a bundle whose version and hashes match its content, so only the content itself can be invalid."""
    return write_bundle(root, FAMILY, **fields)


@pytest.mark.parametrize("family", FAMILIES)
def test_open_bundle_returns_what_was_written(family: str, tmp_path: Path) -> None:
    requests = (RequestCase(request={"text": "line\u2028separator, \x85 and \x1c"}, answer={"label": "駅弁"}),) * 2
    files = bundle_files(family, requests=requests)
    folder = write_bundle(tmp_path, family, files=files)
    bundle = open_bundle(folder)
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
def test_flipped_bit_is_refused(folder: Path, name: str, at: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    (folder / name).write_bytes(content)
    assert_refused(folder, f"{name} has sha256 .*…, but the manifest says .*…")


@pytest.mark.parametrize("at", range(0, 1500, 97))
def test_flipped_bit_in_the_manifest_is_refused(folder: Path, at: int) -> None:
    content = bytearray((folder / MANIFEST).read_bytes())
    at = next(i for i in range(at, len(content)) if not content[i : i + 1].isspace())
    content[at] ^= 1
    (folder / MANIFEST).write_bytes(content)
    assert_refused(folder, "manifest.json")


def test_folder_that_vanishes_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def removed(path: Path) -> NoReturn:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    monkeypatch.setattr(os, "scandir", removed)
    assert_refused(folder, "cannot list the folder: No such file")


@pytest.mark.parametrize("name", [MANIFEST, MODEL, GOLDEN, REQUESTS, TOKENIZER])
def test_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert_refused(folder, f"cannot read {name}: No such file")


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_file_of_another_size_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    assert_refused(folder, f"{name} has {len(content) - 1} bytes, but the manifest says {len(content)}")
    (folder / name).write_bytes(content + b"\0")
    assert_refused(folder, f"{name} has {len(content) + 1} bytes, expected at most {len(content)}")


@pytest.mark.parametrize("name", [MANIFEST, MODEL])
def test_symlink_folder_and_fifo_are_refused(folder: Path, name: str) -> None:
    real = folder.parent / name
    (folder / name).rename(real)
    (folder / name).symlink_to(real)
    assert_refused(folder, f"{name} is not a regular file")
    (folder / name).unlink()
    (folder / name).mkdir()
    assert_refused(folder, f"cannot read {name}: Is a directory")
    (folder / name).rmdir()
    os.mkfifo(folder / name)
    assert_refused(folder, f"{name} is not a regular file")


@pytest.mark.parametrize(
    "name", ["../weights.onnx", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "a\0b", "-rf", ".hidden", "x" * 101, "a\n"]
)
def test_unsafe_file_name_is_refused(folder: Path, name: str) -> None:
    rewrite(folder, lambda content: content["files"].update({name: content["files"][MODEL]}))
    assert_refused(folder, "manifest.json: field 'files")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["tolerance"]["logits"].update(atol=9e-3), "manifest.json was changed: its content has version"),
        (lambda c: c["head"].update(labels=["food", "travel", "sport"]), "manifest.json was changed"),
        (lambda c: c["files"][MODEL].update(sha256="0" * 64), "manifest.json was changed"),
        (lambda c: c.update(version="0" * 12), "manifest.json was changed"),
        (lambda c: c.update(note="hello"), "field 'note': Extra inputs are not permitted"),
        (lambda c: c["limits"].update(max_rows=3), "field 'limits.max_rows': Extra inputs"),
        (lambda c: c.pop("tolerance"), "field 'tolerance': Field required"),
        (lambda c: c.update(format_version=3), "field 'format_version': Input should be 1 or 2"),
        (lambda c: c["tolerance"]["logits"].update(atol=1.0), r"field 'tolerance\.logits\.atol': .* less than"),
        (lambda c: c["tolerance"]["logits"].update(atol=float("nan")), r"field 'tolerance\.logits\.atol'"),
        (lambda c: c["tolerance"]["logits"].update(rtol=float("inf")), r"field 'tolerance\.logits\.rtol'"),
        (lambda c: c["tolerance"].pop("logits"), r"outputs and tolerances differ in \['logits'\]"),
        (lambda c: c["files"].pop(GOLDEN), r"files lack \['golden\.safetensors'\]"),
        (lambda c: c["files"].pop(TOKENIZER), r"files lack \['tokenizer\.json'\]"),
        (lambda c: c.update(task="classify"), "field 'task': Extra inputs are not permitted"),
        (lambda c: c["head"].update(labels=[]), r"field 'head\.labels\.labels'"),
        (
            lambda c: c["inputs"].pop(),
            r"inputs are not those of the pair text and labels: they differ in \['lengths'\]",
        ),
        (lambda c: c["head"].update(kind="oracle"), "field 'head'"),
        (lambda c: c.update(parameters={}), "field 'parameters': Extra inputs are not permitted"),
        (lambda c: c["limits"].update(max_items=0), r"field 'limits\.max_items'"),
        (lambda c: c.update(name="../up"), "field 'name'"),
        (lambda c: c["files"][MODEL].update(sha256="0" * 63), r"field 'files\.model\.onnx\.sha256'"),
    ],
)
def test_changed_manifest_is_refused(folder: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    rewrite(folder, change)
    assert_refused(folder, message)


def test_manifest_that_is_not_json_is_refused(folder: Path) -> None:
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null"):
        (folder / MANIFEST).write_bytes(content)
        assert_refused(folder, "manifest.json: field ''")


@pytest.mark.parametrize("name", ["summary", "max_items", "atol"])
def test_manifest_with_a_field_that_comes_twice_is_refused(folder: Path, name: str) -> None:
    """The file shows one value, and the service would use the other."""
    text = (folder / MANIFEST).read_text()
    field = next(line.strip().rstrip(",") for line in text.splitlines() if line.strip().startswith(f'"{name}"'))
    (folder / MANIFEST).write_text(text.replace(field, f"{field}, {field}", 1))
    assert_refused(folder, f"manifest.json: field '{name}' comes twice")


def test_manifest_over_the_size_limit_is_refused(folder: Path) -> None:
    with (folder / MANIFEST).open("ab") as file:
        file.truncate(MAX_MANIFEST_BYTES * 1000)  # a sparse file
    assert_refused(
        folder, f"manifest.json has {MAX_MANIFEST_BYTES * 1000} bytes, expected at most {MAX_MANIFEST_BYTES}"
    )


def test_documented_limits_are_those_of_the_reader() -> None:
    """Each row of the table in docs/bundle.md: the file, its bytes, its contents."""
    text = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text()
    rows = re.findall(r"^\| ([a-z`. ]+) \| (\d+) ([KMG])iB \| (.*)\|$", text, re.MULTILINE)
    sizes = {
        name if " " in name else name.strip("`"): int(size) << {"K": 10, "M": 20, "G": 30}[unit]
        for name, size, unit, _ in rows
    }
    limits = {MANIFEST: MAX_MANIFEST_BYTES, **MAX_FILE_BYTES, MODEL: MAX_FILE_BYTES[MODEL] + 1}
    assert sizes == limits | {
        "any other file": MAX_OTHER_FILE_BYTES,
        "all files": MAX_BUNDLE_BYTES,
    }
    contents = {name.strip("`"): content.strip() for name, _, _, content in rows}
    assert contents[MANIFEST].startswith(f"{MAX_FILES} files; ")
    rows_exponent = MAX_GOLDEN_ROWS.bit_length() - 1
    header = f"{MAX_GOLDEN_HEADER_BYTES >> 20} MiB of header"
    assert contents[GOLDEN] == f"{header}, {MAX_GOLDEN_CASES:,} cases of 2^{rows_exponent} rows"
    assert 2**rows_exponent == MAX_GOLDEN_ROWS
    assert (contents[REQUESTS], contents[TOKENS]) == (f"{MAX_REQUESTS:,} lines", f"{MAX_TOKEN_CASES:,} lines")


def test_signature_is_checked_first_if_there_are_trusted_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUSTED_KEYS, "0" * 64)
    assert_refused(folder, "there is no signature.json; sign the bundle with python -m export.sign")
    assert open_bundle(folder, require_signature=False)
    (folder / SIGNATURE).write_text("{}")
    (folder / MANIFEST).write_text("{}")
    assert_refused(folder, "signature.json: field 'key': Field required")


def test_folder_of_another_name_is_refused(folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(folder.parent / ("f" * 12))
    assert_refused(moved, f"manifest.json belongs to tiny-texts/{folder.name}")
    other = tmp_path / "other" / folder.name
    other.parent.mkdir()
    moved.rename(other)
    assert_refused(other, f"manifest.json belongs to tiny-texts/{folder.name}")


def test_graph_is_checked_after_the_hashes(tmp_path: Path) -> None:
    model = onnx_model(FAMILY)
    content = model.SerializeToString()
    assert_refused(write_consistent(tmp_path, files=bundle_files(FAMILY, model=content[:-3])), "model.onnx: truncated")
    folder = write_consistent(tmp_path, provenance={**manifest_fields(FAMILY)["provenance"], "opset": 19})
    assert_refused(folder, "model.onnx: opset 20, expected 19")


def write_with_golden(root: Path, tensors: dict[str, Any]) -> Path:
    return write_consistent(root, files={**bundle_files(FAMILY), GOLDEN: save(tensors)})


def test_incomplete_golden_cases_are_refused(tmp_path: Path) -> None:
    assert_refused(write_with_golden(tmp_path, {}), "golden.safetensors: the file holds no case")
    tensors = pack_golden(golden_cases(FAMILY))
    not_finite = tensors | {"1/out/logits": np.full_like(tensors["1/out/logits"], np.nan)}
    assert_refused(
        write_with_golden(tmp_path, not_finite), "golden.safetensors: 1/out/logits holds a value that is not finite"
    )
    no_lengths = {key: value for key, value in tensors.items() if key != "1/in/lengths"}
    assert_refused(write_with_golden(tmp_path, no_lengths), r"case 1 has inputs \['ids'\] and outputs")
    no_outputs = {key: value for key, value in tensors.items() if not key.startswith("0/out/")}
    assert_refused(write_with_golden(tmp_path, no_outputs), r"case 0 has inputs .* and outputs \[\]")
    unknown_output = tensors | {"0/out/extra": tensors["0/out/logits"]}
    assert_refused(write_with_golden(tmp_path, unknown_output), "case 0 .*'extra'")
    no_probabilities = {key: value for key, value in tensors.items() if not key.endswith("/out/probabilities")}
    assert_refused(write_with_golden(tmp_path, no_probabilities), r"no case has the outputs \['probabilities'\]")
    empty = tensors | {key: value[:0] for key, value in tensors.items() if key.startswith("1/")}
    assert_refused(
        write_with_golden(tmp_path, empty), "golden.safetensors: 1/out/.* is empty, expected at least one value"
    )


def test_golden_cases_of_a_language_model_may_hold_prompts_without_caches(tmp_path: Path) -> None:
    prompt = {"ids": np.array([[1, 2, 3]]), "past_lengths": np.array([2])}
    case = GoldenCase(inputs=prompt, outputs={"logits": np.zeros((1, 1, 29), np.float32)})
    folder = write_bundle(tmp_path, "language-model", files=bundle_files("language-model", golden=(case,)))
    assert set(open_bundle(folder).golden[0].inputs) == {"ids", "past_lengths"}


@pytest.mark.parametrize("key", ["x/in/ids", "0/middle/ids", "ids", "0/in/"])
def test_golden_cases_with_invalid_keys_are_refused(tmp_path: Path, key: str) -> None:
    assert_refused(write_with_golden(tmp_path, {key: np.zeros(1, np.float32)}), "golden.safetensors: ")


DEEP = b'{"0/in/ids": ' + b"[" * 100_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        b"\x02\0\0\0\0\0\0\0{]",
        b"\x10\0\0\0\0\0\0\0" + b"[" * 16,
        len(DEEP).to_bytes(8, "little") + DEEP,
    ],
)
def test_golden_file_that_is_not_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    assert_refused(write_consistent(tmp_path, files={**bundle_files(FAMILY), GOLDEN: content}), "golden.safetensors: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: "),
        (b'{"request": {}, "answer": {}}\n{"request": {}', "line 2: "),
        (b'{"request": {}, "answer": {}}\n\n', "line 2: "),
        (b'{"request": {}}\n', "line 1: field 'answer': Field required"),
        (b'{"request": {}, "answer": {}, "note": 1}\n', "line 1: field 'note': Extra inputs"),
        (b'{"request": [], "answer": {}}\n', "line 1: field 'request': Input should be an object"),
        (b"[1]\n", "line 1: "),
        (b"3\n", "line 1: "),
        (b"\xff\n", "line 1: "),
        (b"[" * 100_000 + b"\n", "line 1: "),
    ],
)
def test_malformed_request_cases_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert_refused(
        write_consistent(tmp_path, files={**bundle_files(FAMILY), REQUESTS: content}), f"requests.jsonl: {message}"
    )


@pytest.mark.parametrize("name", [MODEL, GOLDEN, REQUESTS, TOKENIZER, "card.md"])
def test_file_beyond_the_limit_of_bytes_is_refused_before_it_is_read(tmp_path: Path, name: str) -> None:
    limit = MAX_FILE_BYTES.get(name, MAX_OTHER_FILE_BYTES)
    folder = write_consistent(tmp_path)
    entries = {known: {"sha256": "a" * 64, "bytes": 1} for known in (MODEL, GOLDEN, REQUESTS, TOKENIZER)}
    for size, message in (
        (limit + 1, f"{name} has {limit + 1} bytes, expected at most {limit}"),
        (limit, "(but the manifest says|at most 1$)"),
    ):
        fields = {**manifest_fields(FAMILY), "files": {**entries, name: {"sha256": "a" * 64, "bytes": size}}}
        manifest = Manifest.versioned(**fields)
        folder = folder.rename(folder.parent / manifest.version)
        (folder / MANIFEST).write_text(manifest.to_json())
        (folder / name).touch()
        assert_refused(folder, message)


def test_bundle_beyond_the_limit_of_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_consistent(tmp_path)
    total = sum(path.stat().st_size for path in folder.iterdir() if path.name != MANIFEST)
    monkeypatch.setattr("service.bundle.MAX_BUNDLE_BYTES", total)
    open_bundle(folder)
    monkeypatch.setattr("service.bundle.MAX_BUNDLE_BYTES", total - 1)
    assert_refused(folder, f"the files have {total} bytes, expected at most {total - 1}")


@pytest.mark.parametrize("name", ["weights.bin", ".hidden", "model.onnx.data", "Manifest.json", "folder/inner", "\xe9"])
def test_file_that_the_manifest_does_not_list_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    unlisted = name.partition("/")[0]
    assert_refused(folder, f"'{unlisted}' is not a file that manifest.json lists; remove it")


def test_link_that_the_manifest_does_not_list_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to("/nowhere")
    assert_refused(folder, "'link' is not a file that manifest.json lists")


def test_signature_is_not_listed(folder: Path) -> None:
    (folder / "signature.json").write_text("{}")
    open_bundle(folder)


def test_control_flow_needs_the_manifest(tmp_path: Path) -> None:
    model = onnx_model(FAMILY)
    changed = type(model).FromString(model.SerializeToString())
    branch = onnx.helper.make_graph([], "branch", [], [])
    changed.graph.node.append(onnx.helper.make_node("If", ["logits"], [], then_branch=branch))
    files = bundle_files(FAMILY, model=changed.SerializeToString())
    assert_refused(write_consistent(tmp_path, files=files), r"model.onnx: node '' \(If\) is control flow")
    assert open_bundle(write_consistent(tmp_path, files=files, control_flow=True)).manifest.control_flow


def test_golden_header_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    content = (MAX_GOLDEN_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}"
    folder = write_consistent(tmp_path, files={**bundle_files(FAMILY), GOLDEN: content})
    assert_refused(folder, f"the header has {MAX_GOLDEN_HEADER_BYTES + 1} bytes, expected at most")


def test_number_of_golden_cases_is_bounded(tmp_path: Path) -> None:
    tensors = pack_golden(golden_cases(FAMILY)[:1] * MAX_GOLDEN_CASES)
    assert len(open_bundle(write_with_golden(tmp_path, tensors)).golden) == MAX_GOLDEN_CASES
    more = tensors | {key.replace("0/", f"{MAX_GOLDEN_CASES}/", 1): tensors[key] for key in tensors if key[:2] == "0/"}
    assert_refused(write_with_golden(tmp_path, more), f"the file holds {MAX_GOLDEN_CASES + 1} cases, expected at most")


@pytest.mark.parametrize("shape", [(1 << 10, (1 << 10) + 1), ((1 << 20) + 1,), (1,) * 9])
def test_rows_of_a_golden_case_are_bounded(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tensors = pack_golden(golden_cases(FAMILY)) | {"0/in/ids": np.zeros(shape, np.uint8)}
    assert_refused(
        write_with_golden(tmp_path, tensors), f"0/in/ids has the axes .* with at most {1 << 20} rows together"
    )


def test_golden_tensor_that_claims_a_huge_shape_is_refused(tmp_path: Path) -> None:
    for shape in ([1 << 40], [1 << 40, 1 << 40], [0, 1 << 63], [-1]):
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
        header = json.dumps({"0/in/ids": entry}).encode()
        content = len(header).to_bytes(8, "little") + header
        assert_refused(
            write_consistent(tmp_path, files={**bundle_files(FAMILY), GOLDEN: content}), "golden.safetensors"
        )


def test_two_names_of_one_golden_case_are_refused(tmp_path: Path) -> None:
    """The second would replace the first."""
    tensors = pack_golden(golden_cases(FAMILY))
    for case in ("00", "+0", "0_0", " 0", "\u0660", "9" * 5000):
        changed = tensors | {f"{case}/in/ids": tensors["0/in/ids"]}
        assert_refused(write_with_golden(tmp_path, changed), "is not CASE/in/NAME or CASE/out/NAME")


def test_number_of_request_cases_is_bounded(tmp_path: Path) -> None:
    line = b'{"request": {}, "answer": {}}\n'
    folder = write_consistent(tmp_path, files={**bundle_files(FAMILY), REQUESTS: line * MAX_REQUESTS})
    assert len(open_bundle(folder).requests) == MAX_REQUESTS
    folder = write_consistent(tmp_path, files={**bundle_files(FAMILY), REQUESTS: line * (MAX_REQUESTS + 1)})
    assert_refused(folder, f"requests.jsonl: the file has more than {MAX_REQUESTS} lines")


def test_tokenizer_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    assert_refused(
        write_consistent(tmp_path, files={**bundle_files(FAMILY), TOKENIZER: b"\xff"}), "tokenizer.json: .*utf-8"
    )


def test_a_bundle_is_found_by_its_own_folder_and_by_that_of_its_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert version_folder(folder) == version_folder(folder.parent) == folder.resolve()
    monkeypatch.chdir(folder)
    assert version_folder(Path()) == folder.resolve()
    (folder.parent / "current").unlink()
    with pytest.raises(BundleError, match="no file `current`"):
        version_folder(folder.parent)


def test_current_version_refuses_invalid_files(folder: Path) -> None:
    current = folder.parent / "current"
    for content in (b"", b"../../../etc", b"\xff", folder.name.upper().encode() + b"0"):
        current.write_bytes(content)
        with pytest.raises(BundleError, match=r"tiny-texts: .*current"):
            current_version(folder.parent)
    current.unlink()
    with pytest.raises(BundleError, match="tiny-texts: no file `current`"):
        current_version(folder.parent)
    current.mkdir()
    with pytest.raises(BundleError, match=r"tiny-texts: cannot read `current`: .*Is a directory"):
        current_version(folder.parent)
    current.rmdir()
    os.mkfifo(current)  # a plain open() would block until a process writes to it
    with pytest.raises(BundleError, match="tiny-texts: `current` is not a regular file"):
        current_version(folder.parent)
    current.unlink()
    current.write_bytes(b"0" * 1000)
    with pytest.raises(BundleError, match="tiny-texts: `current` has 1000 bytes, expected at most 100"):
        current_version(folder.parent)


def test_bundle_is_immutable(folder: Path) -> None:
    bundle = open_bundle(folder)
    with pytest.raises(ValidationError, match="frozen"):
        bundle.manifest.name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.model = b""  # type: ignore[misc]


def test_token_cases_are_read_and_checked(tmp_path: Path) -> None:
    content = '{"text": "the\u2028train", "ids": [1, 2]}\n{"text": "a", "ids": [0]}\n'
    files = {**bundle_files(FAMILY), TOKENS: content.encode()}
    cases = open_bundle(write_consistent(tmp_path, files=files)).tokens
    assert [(case.text, case.ids) for case in cases] == [("the\u2028train", (1, 2)), ("a", (0,))]
    assert open_bundle(write_consistent(tmp_path)).tokens == ()
    for line in (b'{"text": "a", "ids": []}', b'{"text": "", "ids": [1]}', b'{"text": "a", "ids": [0.5]}', b"{}"):
        files = {**bundle_files(FAMILY), TOKENS: line}
        assert_refused(write_consistent(tmp_path, files=files), "tokens.jsonl: line 1: field")


def test_distributions_are_read_if_the_bundle_has_them(folder: Path, tmp_path: Path) -> None:
    assert open_bundle(folder).distributions is None
    assert read_distributions(folder, open_bundle(folder).manifest) is None
    files = bundle_files(FAMILY) | distribution_files(FAMILY)
    measured = write_consistent(tmp_path / "measured", files=files)
    bundle = open_bundle(measured)
    assert bundle.distributions == distributions(FAMILY) == read_distributions(measured, bundle.manifest)
    (measured / DISTRIBUTIONS).write_bytes(files[DISTRIBUTIONS].replace(b"random", b"arbitr"))
    with pytest.raises(BundleError, match=r"distributions.json has sha256"):
        read_distributions(measured, bundle.manifest)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "distributions.json: field 'source'"),
        (b"nothing", "distributions.json: field ''"),
        (
            distributions("image-classifier").to_json().encode(),
            "inputs has 'brightness', which is no statistic of this",
        ),
        (b" " * ((1 << 16) + 1), "distributions.json has 65537 bytes, expected at most 65536"),
    ],
)
def test_distributions_that_do_not_fit_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    assert_refused(write_consistent(tmp_path, files={**bundle_files(FAMILY), DISTRIBUTIONS: content}), message)
