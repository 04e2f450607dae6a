"""Swap every pair of labels and corrupt every tokenizer, and count what export and the service do not refuse.

    python -m benchmarks.proof.labels_and_tokenizers [--runs runs] [--bundles bundles]

Export: the candidate's manifest or tokenizer is corrupted; its tokenizer together with the run's; the run folder's
tokenizer with its hash in the checkpoint; or the same without the token cases of training, as in runs of earlier
revisions, where only the texts of the test split can speak. Load: the labels or the tokenizer of a bundle are replaced,
with a new version and the honest goldens, and the bundle goes through every stage of loading but the replay of its
tensors. A corruption that changes the ids of none of many random texts is left out.
"""

import argparse
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.proof.tokenizer_corruptions import corruptions
from export.candidate import Candidate, build_candidate
from export.errors import ExportError
from export.gates.vocabulary.gate import check_vocabulary
from export.source import Source
from export.sources.registry import load, parse_source
from export.sources.run import run_source
from service.bundle import Bundle, current_version, open_bundle
from service.engine.sessions.model import create_model
from service.engine.sessions.session import Session
from service.errors import BundleError
from service.manifest import MANIFEST, TOKENIZER, Manifest
from service.tasks.replay import replay_requests
from training.checkpoint import load_run

ROOT = Path(__file__).parents[2]
Escapes = dict[str, list[str]]


def label_swaps(labels: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for i, j in combinations(range(len(labels)), 2):
        swapped = list(labels)
        swapped[i], swapped[j] = labels[j], labels[i]
        yield f"{labels[i]} and {labels[j]}", tuple(swapped)


def with_labels(manifest: Manifest, labels: tuple[str, ...]) -> Manifest:
    return manifest.model_copy(update={"head": manifest.head.model_copy(update={"labels": labels})})


def is_refused_at_export(candidate: Candidate) -> bool:
    try:
        check_vocabulary(candidate)
    except ExportError:
        return True
    return False


def is_refused_at_load(folder: Path, session: Session) -> bool:
    try:
        bundle = open_bundle(folder)
        replay_requests(create_model(bundle, session), bundle.requests)
    except BundleError:
        return True
    return False


def rewritten(candidate: Candidate, tokenizer: str) -> Candidate:
    """The candidate of a run folder with this tokenizer and its hash."""
    run = candidate.source.run
    assert run is not None
    files = {**run.checkpoint.files, TOKENIZER: hashlib.sha256(tokenizer.encode()).hexdigest()}
    run = replace(run, checkpoint=replace(run.checkpoint, files=files))
    return replace(candidate, source=replace(candidate.source, run=run, tokenizer=tokenizer), tokenizer=tokenizer)


def corrupted_folder(
    root: Path, bundle: Bundle, source: Path, labels: Any = None, tokenizer: str | None = None
) -> Path:
    """A copy of the bundle with other labels or another tokenizer, and a version of its own."""
    fields = bundle.manifest.model_dump(mode="json", exclude={"version"})
    if labels is not None:
        fields["head"]["labels"] = labels
    if tokenizer is not None:
        content = tokenizer.encode()
        fields["files"][TOKENIZER] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest = Manifest.versioned(**fields)
    folder = root / manifest.name / manifest.version
    shutil.copytree(source, folder)
    (folder / MANIFEST).write_text(manifest.to_json())
    if tokenizer is not None:
        (folder / TOKENIZER).write_text(tokenizer)
    return folder


def read_source(folder: Path) -> Source:
    """The source of a run, or of a Keras model that was trained into the folder."""
    if not (folder / "model.keras").exists():
        return run_source(load_run(folder))
    words = ["--examples", str(folder / "examples.safetensors"), "--spec", str(folder / "spec.toml")]
    _, command, options = parse_source(["keras", str(folder / "model.keras"), *words])
    return load(command, options).source


def measure(name: str, args: Any) -> tuple[dict[str, int], Escapes]:
    """The number of corruptions and the escapes, by kind."""
    candidate = build_candidate(read_source(args.runs / name), b"")
    source = args.bundles / name / current_version(args.bundles / name)
    bundle = open_bundle(source)
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
    counts: dict[str, int] = {}
    escapes: Escapes = {}

    def record(kind: str, corruption: str, refused: bool) -> None:
        counts[kind] = counts.get(kind, 0) + 1
        if not refused:
            escapes.setdefault(kind, []).append(corruption)

    assert not is_refused_at_export(candidate)
    assert not is_refused_at_load(source, session)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for pair, labels in label_swaps(bundle.manifest.labels):
            changed = replace(candidate, manifest=with_labels(candidate.manifest, labels))
            record("labels, export", pair, is_refused_at_export(changed))
            folder = corrupted_folder(root, bundle, source, labels=labels)
            record("labels, load", pair, is_refused_at_load(folder, session))
            shutil.rmtree(folder)
        for corruption, content in corruptions(bundle.tokenizer).items() if bundle.tokenizer else ():
            record("tokenizer, export", corruption, is_refused_at_export(replace(candidate, tokenizer=content)))
            both = replace(candidate, source=replace(candidate.source, tokenizer=content), tokenizer=content)
            record("tokenizer and run's, export", corruption, is_refused_at_export(both))
            folder_candidate = rewritten(candidate, content)
            record("run folder, export", corruption, is_refused_at_export(folder_candidate))
            early = replace(folder_candidate, source=replace(folder_candidate.source, tokens=()))
            record("run folder without token cases, export", corruption, is_refused_at_export(early))
            folder = corrupted_folder(root, bundle, source, tokenizer=content)
            record("tokenizer, load", corruption, is_refused_at_load(folder, session))
            shutil.rmtree(folder)
    return counts, escapes


def main() -> None:
    parser = argparse.ArgumentParser(description="Count corruptions of labels and tokenizers that are not refused.")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--json", type=Path, help="write the escapes to this file")
    args = parser.parse_args()
    totals: dict[str, int] = {}
    escapes: dict[str, Escapes] = {}
    for path in sorted(args.bundles.glob("*/current")):
        counts, escapes[path.parent.name] = measure(path.parent.name, args)
        for kind, count in counts.items():
            totals[kind] = totals.get(kind, 0) + count
            print(f"{path.parent.name}: {kind}: {count}, escaped: {escapes[path.parent.name].get(kind, [])}")
    for kind, total in totals.items():
        print(f"{kind}: {sum(len(found.get(kind, [])) for found in escapes.values())} of {total} escaped")
    if args.json is not None:
        args.json.write_text(json.dumps(escapes, indent=1))


if __name__ == "__main__":
    main()
