"""The opsets that an ONNX file imports, and the metadata of the whole model.

Invariant: every domain has one version, within the range that this version of onnxruntime knows. A domain that a node
uses is imported: for one that is not, onnxruntime would take its newest opset.
"""

from service.onnx_wire import Message

STANDARD, MACHINE_LEARNING, MICROSOFT = "", "ai.onnx.ml", "com.microsoft"
# onnxruntime takes both names for the standard domain.
ALIASES = {"ai.onnx": STANDARD}
# Opset 7 is the oldest that onnxruntime supports; below it, dropout trains unless an attribute says otherwise.
OPSETS = range(7, 27)
# Of the domains that a file may import beside the standard one.
OTHER_OPSETS = {MACHINE_LEARNING: range(1, 6), MICROSOFT: range(1, 2)}
# With IR versions below 4, every initializer is the default value of an input; 13 is the newest that onnxruntime reads.
IR_VERSIONS = range(4, 14)
MAX_IMPORTS = 16
MAX_METADATA_ENTRIES = 64
MAX_METADATA_CHARACTERS = 1 << 16
# Keys that onnxruntime follows begin so: `ort_config` (options of the session), `ep_compatibility_info.`, `layer_ann`.
RESERVED_KEYS = ("ort", "ep_", "layer_", "com.microsoft")
METADATA = "it carries metadata, which onnxruntime may follow"


def domain_of(name: str) -> str:
    """Return the domain of this name. Raises ValueError if it is not admitted."""
    domain = ALIASES.get(name, name)
    if domain not in {STANDARD, *OTHER_OPSETS}:
        raise ValueError(
            f"operator domain {name[:80]!r}, expected only standard ONNX operators and those of {MACHINE_LEARNING} "
            f"or {MICROSOFT}"
        )
    return domain


def check_versions(model: Message, opset: int) -> dict[str, int]:
    """Return the version of each imported domain; that of the standard domain must be `opset`. Raises ValueError."""
    if "graph" not in model:
        raise ValueError("it has no graph")
    if model.number("ir_version") not in IR_VERSIONS:
        raise ValueError(f"IR version {model.number('ir_version')}, expected {_bounds(IR_VERSIONS)}")
    entries = model.messages("opset_import")
    if len(entries) > MAX_IMPORTS:
        raise ValueError(f"it imports {len(entries)} opsets, expected at most {MAX_IMPORTS}")
    versions: dict[str, list[int]] = {STANDARD: []}
    for entry in entries:
        versions.setdefault(domain_of(entry.text("domain")), []).append(entry.number("version"))
    # skl2onnx imports the standard domain twice; of two versions, a reader may take either.
    if set(versions[STANDARD]) != {opset}:
        raise ValueError(f"opset {' and '.join(map(str, versions[STANDARD])) or 'missing'}, expected {opset}")
    if opset not in OPSETS:
        raise ValueError(f"opset {opset}, expected {_bounds(OPSETS)}")
    for domain, admitted in OTHER_OPSETS.items():
        several = versions.get(domain, [])
        if any(version not in admitted or version != several[0] for version in several):
            text = " and ".join(map(str, several))
            raise ValueError(f"{domain} opset {text}, expected one of {_bounds(admitted)}")
    return {domain: several[0] for domain, several in versions.items()}


def check_metadata(model: Message) -> None:
    """Raise ValueError unless the metadata of a model is small, has each key once, and none that is reserved."""
    entries = model.messages("metadata_props")
    keys = [entry.text("key") for entry in entries]
    if reserved := [key for key in keys if key.lower().startswith(RESERVED_KEYS)]:
        raise ValueError(f"{METADATA}: key {reserved[0][:80]!r}")
    if len(set(keys)) < len(keys):
        raise ValueError(f"its metadata has a key twice: {max(keys, key=keys.count)[:80]!r}")
    num_characters = sum(len(entry.text("key")) + len(entry.text("value")) for entry in entries)
    if len(entries) > MAX_METADATA_ENTRIES or num_characters > MAX_METADATA_CHARACTERS:
        raise ValueError(
            f"its metadata has {len(entries)} entries of {num_characters} characters, "
            f"expected at most {MAX_METADATA_ENTRIES} of {MAX_METADATA_CHARACTERS}"
        )


def _bounds(numbers: range) -> str:
    return f"{numbers[0]} to {numbers[-1]}"
