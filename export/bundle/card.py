"""The card of a bundle: a Markdown page that tells people what the model is, how good it is and how it was proven.

The pictures of training are copied, and the parity plot is added. The same run gives the same bytes. The bundle's hash
covers the card, so a change of any text here changes every version.
"""

from collections.abc import Sequence

from export.bundle.plots import parity_png
from export.bundle.precision import describe_precision
from export.bundle.tables import markdown_table
from export.bundle.use import describe_use
from export.candidate import Candidate
from export.gates.golden.gate import NUM_HEAVY_MUTANTS, NUM_LANGUAGE_MUTANTS, NUM_MUTANTS
from export.gates.proof import Proof
from export.source import Source
from service.contract.tensors import FLOATS, TensorSpec
from service.manifest import CARD, Manifest, Tolerance

PARITY_PLOT = "parity.png"
PICTURES = {
    "curves.png": "Learning curves",
    "confusion.png": "Confusion matrix on the test split",
    "misclassified.png": "Test items that it is most wrong about",
    "samples.png": "Samples",
}
SAMPLES = "samples.txt"
# Names of unused parameters on the card.
MAX_LISTED = 6
# The reference of a graph that came with outputs, as its provenance calls it.
GIVEN = "the given outputs"


def card_files(candidate: Candidate, proof: Proof) -> dict[str, bytes]:
    """`card.md` and its pictures, by file name."""
    run = candidate.source.run
    names = [] if run is None else [name for name in (*PICTURES, SAMPLES) if (run.folder / name).is_file()]
    contents = {name: (run.folder / name).read_bytes() for name in names if run is not None}
    files = {name: content for name, content in contents.items() if name in PICTURES}
    files[PARITY_PLOT] = parity_png(
        candidate.manifest, proof.parity, has_float64=candidate.source.predict_float64 is not None
    )
    samples = contents.get(SAMPLES, b"").decode()
    return {**files, CARD: render_card(candidate, proof, pictures=list(files), samples=samples).encode()}


def render_card(candidate: Candidate, proof: Proof, *, pictures: Sequence[str], samples: str) -> str:
    """The text of `card.md`."""
    manifest = candidate.manifest
    sections = {
        "Use": describe_use(manifest),
        "Data": _data(candidate.source),
        "Quality": _quality(candidate, proof, pictures, samples),
        "Precision": describe_precision(proof.precision),
        "Parity": _parity(candidate, proof),
        "Requests": _requests(candidate, proof),
        "Golden cases": _goldens(candidate, proof),
        "Invariance": _invariance(candidate, proof),
        "Graph": _graph(candidate, proof),
        "Weights": _weights(proof),
        "Provenance": _provenance(manifest),
    }
    body = "\n".join(f"## {title}\n\n{text.strip()}\n" for title, text in sections.items() if text)
    return f"# {manifest.name}\n\n{_origin(candidate.source)}\n\n{manifest.summary}\n\n{body}"


def _origin(source: Source) -> str:
    """The first line: what the model was trained on or compared with, and, as the note says, what it is not for."""
    dataset = source.provenance.dataset
    title = f"Trained on {dataset}" if source.run is not None else f"Data: {dataset or 'not recorded'}"
    return f"**{title}.** {source.note}"


def _data(source: Source) -> str:
    hashes = source.provenance.data.items()
    table = markdown_table(("source", "sha256"), ((name, f"`{sha256}`") for name, sha256 in hashes))
    return f"**{source.provenance.dataset}.** {source.note}\n\n{table}"


def _quality(candidate: Candidate, proof: Proof, pictures: Sequence[str], samples: str) -> str:
    reference = candidate.source.reference
    if candidate.source.run is None:
        return _measured_quality(candidate, proof)
    dataset = candidate.source.provenance.dataset
    metrics = markdown_table(
        ("metric", f"on {dataset}"),
        ((name, f"{value:.4f}") for name, value in candidate.source.provenance.metrics.items()),
    )
    comparison = markdown_table(
        (f"on the test split of {dataset}", reference, "ONNX"),
        ((name, f"{torch:.5f}", f"{graph:.5f}") for name, (torch, graph) in proof.metric.items()),
    )
    images = "\n\n".join(f"![{PICTURES[name]}]({name})" for name in pictures if name in PICTURES)
    sample_block = f"\n\nSamples:\n\n```text\n{samples.strip()}\n```" if samples else ""
    measured = f"{reference} and the graph, measured at export:\n\n{comparison}"
    return f"As training measured it:\n\n{metrics}\n\n{measured}\n\n{images}{sample_block}"


def _measured_quality(candidate: Candidate, proof: Proof) -> str:
    """What the examples say about a model from elsewhere, of which no training recorded a metric."""
    reference, num_items = candidate.source.reference, len(candidate.source.examples)
    name = "the reference" if reference == GIVEN else reference
    recorded = candidate.source.provenance.metrics
    claims = markdown_table(
        ("metric", "as its origin has it"), ((key, f"{value:.4f}") for key, value in recorded.items())
    )
    claimed = f"{claims}\n\n" if recorded else ""
    if not proof.metric:
        return (
            f"{claimed}The examples have no targets that the head `{candidate.manifest.head.kind}` can be scored on, "
            f"so no metric was measured. On all {num_items:,} examples the graph computes what {name} computes."
        )
    table = markdown_table(
        (f"on the {num_items:,} examples", name, "ONNX"),
        ((score, f"{expected:.5f}", f"{graph:.5f}") for score, (expected, graph) in proof.metric.items()),
    )
    return f"{claimed}Measured at export:\n\n{table}"


def _parity(candidate: Candidate, proof: Proof) -> str:
    manifest, source = candidate.manifest, candidate.source
    has_float64 = source.predict_float64 is not None
    rows: list[tuple[str, ...]] = []
    for name, tolerance in manifest.tolerance.items():
        largest, (torch_error, onnx_error) = proof.parity.largest(name), proof.parity.float64_errors(name)
        allowed = _allowed(manifest, name, tolerance)
        errors = (f"{torch_error:.2e}", f"{onnx_error:.2e}")
        cells = (f"`{name}`", f"{largest.max_difference:.2e}", allowed, largest.case)
        rows.append((*cells, *errors) if has_float64 else cells)
    num_cases = len({measurement.case for measurement in proof.parity.measurements})
    header: tuple[str, ...] = ("output", "largest difference", "allowed", "at")
    if has_float64:
        header = (*header, f"{source.reference} to float64", "ONNX to float64")
    float64_note = (
        "A float64 run is the referee." if has_float64 else "The reference has no float64, so there is no referee."
    )
    return (
        f"{_reference(source)} against the session that serves, {_arithmetic(source)} on the CPU, over "
        f"{num_cases} batches of real and random items, each run twice with the same bits. {float64_note}\n\n"
        f"{markdown_table(header, rows)}\n\n"
        f"![Difference of each batch, relative to what is allowed]({PARITY_PLOT})\n\n"
        f"Also compared, every element of every output:\n\n{_coverages(proof)}{_domain(proof)}"
    )


def _reference(source: Source) -> str:
    if source.reference == GIVEN:
        return "The given graph, run without optimisation and compared with the given outputs,"
    if source.precision is not None:
        changed = "the inputs of its products rounded" if source.precision.kind == "tf32" else "its weights as float32"
        return f"The graph with {changed}, run without optimisation,"
    return "PyTorch (eager, eval mode)" if source.reference == "PyTorch" else source.reference


def _arithmetic(source: Source) -> str:
    if source.precision is None:
        return "both in float32"
    return f"which computes in {'float32' if source.precision.kind == 'tf32' else source.precision.kind}"


def _allowed(manifest: Manifest, output: str, tolerance: Tolerance) -> str:
    [spec] = [spec for spec in manifest.outputs if spec.name == output]
    if spec.dtype == "uint8":
        return "1 level, at most 1 in 1,000"
    return f"{tolerance.atol:g} + {tolerance.rtol:g} × value" if spec.dtype in FLOATS else "equal"


def _coverages(proof: Proof) -> str:
    """What was compared beside the grid, a row each."""
    rows = []
    for coverage in proof.coverages:
        output, difference = max(coverage.max_differences.items(), key=lambda item: item[1])
        counts = f"{coverage.num_batches:,}", f"{coverage.num_items:,}"
        rows.append((coverage.name, *counts, f"{coverage.num_excused:,}", f"{difference:.2e} (`{output}`)"))
    return markdown_table(("compared", "batches", "items", "of them beyond float32", "largest difference"), rows)


def _domain(proof: Proof) -> str:
    """The proven domain of each float input, if there is one."""
    if not proof.parity.domain:
        return ""
    bounds = ", ".join(f"`{name}` {bound.low:g} to {bound.high:g}" for name, bound in proof.parity.domain.items())
    return (
        f"\n\nDomain: {bounds}. The structured inputs reach both ends. An item beyond float32 amplifies rounding, as "
        "a long series may: it is out of tolerance by no more than rounding explains, which a float64 run measures."
    )


def _goldens(candidate: Candidate, proof: Proof) -> str:
    score, num_cases = proof.goldens.score, len(proof.golden)
    tried = "" if candidate.source.run is not None else _few_mutants(proof.goldens.num_drawn)
    table = markdown_table(
        ("mutants of the graph", "refused at export", "refused at load"),
        [(str(score.mutants), str(score.killed_at_export), str(score.killed_at_load))],
    )
    return (
        f"{num_cases} cases, chosen because mutants differ most on them. The mutants are drawn from seed {score.seed}; "
        f"those that stay within the tolerance everywhere are not counted.{tried} On a CPU, the service replays the "
        f"cases within the rounding errors of float32.\n\n{table}"
    )


def _few_mutants(num_drawn: int) -> str:
    """A sentence if fewer mutants than usual were tried."""
    if num_drawn == 0:
        return " None was tried, because the graph stores nothing that could be changed."
    if num_drawn >= NUM_MUTANTS:
        return ""
    is_heavy = num_drawn in {NUM_HEAVY_MUTANTS, NUM_LANGUAGE_MUTANTS}
    reason = "each takes long on a model of this size" if is_heavy else "the graph admits no more"
    return f" Only {num_drawn} were tried instead of {NUM_MUTANTS}, because {reason}."


def _requests(candidate: Candidate, proof: Proof) -> str:
    sentences = [f"The service answers {len(proof.requests)} stored requests before it is ready."]
    labels = candidate.source.labels
    predictions = [prediction for case in proof.requests for prediction in case.answer.get("predictions", ())]
    first = {prediction["label"] for prediction in predictions if "label" in prediction}
    absent = [label for label in labels if label not in first]
    if not first:
        # The head gives no label of its own to an item.
        labels = ()
    elif absent:
        listed = ", ".join(f"`{label}`" for label in absent)
        sentences.append(
            f"{candidate.source.reference} ranks these labels first for no test item, so no stored request does: "
            f"{listed}."
        )
    elif labels:
        sentences.append("Each label ranks first in one of them.")
    if proof.tokens:
        num_tokens = len({token for case in proof.tokens for token in case.ids})
        run = candidate.source.run
        source = "the source's" if run is None else "training's" if candidate.source.tokens else "the run's"
        sentences.append(
            f"It also compares the ids of {len(proof.tokens)} texts with those of {source} tokenizer; they hold "
            f"{num_tokens:,} of the {candidate.source.vocabulary:,} tokens."
        )
    return " ".join(sentences)


def _invariance(candidate: Candidate, proof: Proof) -> str:
    certificate = proof.certificate
    if not candidate.manifest.is_batched:
        return "The model has no batch axis: every request has one item, which runs alone."
    level = certificate.invariance.level
    finding = (
        "not one bit of an answer depends on the batch"
        if level == "bitwise"
        else f"answers move by at most {certificate.invariance.measured:.2e} with the batch"
    )
    strategy, bounds = certificate.invariance.strategy, certificate.invariance.bounds
    batching = {
        "none": "Batches run as they come (strategy `none`)",
        "minimum-batch-2": "A single item runs as two equal ones (strategy `minimum-batch-2`)",
        "batch-buckets": f"Batches are filled up to a size of {bounds} (strategy `batch-buckets`)",
        "length-buckets": f"Items are padded to a length of {bounds} (strategy `length-buckets`)",
    }[strategy]
    return (
        f"**{level}**: {finding} ({certificate.num_equal} of {certificate.num_compared} comparisons are bit-equal). "
        f"{batching}. Measured: {certificate.invariance.how}."
    )


def _graph(candidate: Candidate, proof: Proof) -> str:
    manifest = candidate.manifest
    operators = ", ".join(f"{count} {name}" for name, count in proof.operators.items())
    specs = [*(("in", spec) for spec in manifest.inputs), *(("out", spec) for spec in manifest.outputs)]
    tensors = markdown_table(("", "tensor", "type", "axes"), ((side, *_tensor(spec)) for side, spec in specs))
    size = f"{candidate.model_bytes:,} bytes, ONNX opset {manifest.provenance.opset}"
    return f"{size}: {operators}.\n\n{tensors}"


def _listed(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    others = len(names) - MAX_LISTED
    return ", ".join(f"`{name}`" for name in names[:MAX_LISTED]) + (f" and {others} more" if others > 0 else "")


def _weights(proof: Proof) -> str:
    weights = proof.weights
    if proof.precision is not None and proof.precision.kind == "tf32":
        return f"Those of `{proof.precision.parent}`, where they are accounted for one by one."
    if proof.precision is not None:
        return (
            f"Those of `{proof.precision.parent}` are accounted for one by one; these are made of them by rounding. "
            "The section Precision says what that changes."
        )
    if weights is None:
        return (
            "The graph came as a file, so no module says which weights belong where: they are not accounted for one by "
            "one. What the graph computes was compared as said above."
        )
    rows = ((change, str(count)) for change, count in weights.transformations.items())
    rounding = (
        f" Folded weights are within {weights.max_rounding:.1e} of their values in float64, relative to the largest."
    )
    unused = f" No operator of the model uses {_listed(weights.unused)}." if weights.unused else ""
    return (
        f"{weights.num_initializers} of {weights.num_initializers} initializers are accounted for: parameters and "
        f"constants of the model, where the model uses them.{rounding if weights.max_rounding else ''}{unused}\n\n"
        f"{markdown_table(('made of the model by', 'initializers'), rows)}"
    )


def _tensor(spec: TensorSpec) -> tuple[str, str, str]:
    return f"`{spec.name}`", spec.dtype, " × ".join(map(str, spec.shape))


def _provenance(manifest: Manifest) -> str:
    provenance = manifest.provenance
    facts = {
        "recipe": provenance.recipe,
        "commit": provenance.commit,
        "seed": provenance.seed,
        "steps": provenance.steps,
    }
    rows = [*facts.items(), *provenance.versions.items()]
    return markdown_table(("", ""), ((name, str(value)) for name, value in rows))
