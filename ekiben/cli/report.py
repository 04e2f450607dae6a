"""What `ekiben inspect` prints of a bundle."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from service.bundle import Bundle
from service.contract.tensors import TensorSpec
from service.manifest import MANIFEST, Manifest
from service.signature import SIGNATURE, Signature, trusted_keys, verify

MAX_LABELS = 10
KEY_WIDTH = 12


def describe_bundle(bundle: Bundle, *, signature: str) -> str:
    """One fact a line, under the name and the summary."""
    manifest = bundle.manifest
    facts = [*_contract(manifest), *_proof(bundle), ("signature", signature)]
    lines = [f"{name:{KEY_WIDTH}}{value}" for name, value in facts]
    return "\n".join([f"{manifest.name} {manifest.version}", manifest.summary, "", *lines])


def signature_state(folder: Path) -> str:
    """Whether a bundle is signed, by which key, and whether that key is in EKIBEN_TRUSTED_KEYS."""
    if not (folder / SIGNATURE).is_file():
        return "none"
    content = (folder / SIGNATURE).read_bytes()
    try:
        key = Signature.model_validate_json(content).key
        verify((folder / MANIFEST).read_bytes(), content, frozenset({key}))
    except ValueError as error:
        return f"invalid: {' '.join(str(error).split())}"
    try:
        is_trusted = key in trusted_keys()
    except ValueError as error:
        return f"by {key}; EKIBEN_TRUSTED_KEYS: {error}"
    return f"by {key}, which EKIBEN_TRUSTED_KEYS {'has' if is_trusted else 'does not have'}"


def _contract(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield "answers", f"POST /{manifest.task} ({manifest.pair})"
    yield "inputs", _tensors(manifest.inputs)
    yield "outputs", _tensors(manifest.outputs)
    if manifest.labels:
        more = f", … ({len(manifest.labels)} in all)" if len(manifest.labels) > MAX_LABELS else ""
        yield "labels", ", ".join(manifest.labels[:MAX_LABELS]) + more
    limits = manifest.limits
    steps = "" if limits.max_steps is None else f", {limits.max_steps:,} steps each"
    yield "request", f"at most {limits.max_items:,} items{steps}"
    for name, values in manifest.domain.items():
        yield "domain", f"{name} from {values.low:g} to {values.high:g}"


def _proof(bundle: Bundle) -> Iterator[tuple[str, str]]:
    manifest = bundle.manifest
    provenance = manifest.provenance
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in provenance.metrics.items())
    yield "data", (provenance.dataset or "not recorded") + (f": {metrics}" if metrics else "")
    for name, tolerance in manifest.tolerance.items():
        allowed = f"{tolerance.atol:g} + {tolerance.rtol:g} × value"
        yield "parity", f"{name}: {tolerance.measured:.1e} from {provenance.reference}, allowed {allowed}"
    invariance = manifest.invariance
    yield "in a batch", f"{invariance.level}, difference {invariance.measured:g} ({invariance.strategy})"
    yield "goldens", f"{len(bundle.golden):,} of tensors, {len(bundle.requests):,} of requests"
    if manifest.mutation is not None:
        score = manifest.mutation
        killed = f"{score.killed_at_export} refused at export, {score.killed_at_load} by the goldens"
        yield "mutants", f"{score.mutants} changed graphs: {killed}"
    size = sum(file.bytes for file in manifest.files.values())
    yield "files", f"{len(manifest.files)}, {size / 1e6:.1f} MB; every hash is that of the manifest"
    yield "commit", provenance.commit


def _tensors(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype}[{', '.join(map(str, spec.shape))}]" for spec in specs)
