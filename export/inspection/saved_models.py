"""What a transformers folder or a .keras file holds, and the command that exports it; both describe themselves."""

import json
import zipfile
from pathlib import Path
from typing import Any

from export.inspection.first_spec import FILL_IN, Seen, table

TASK_OF_SUFFIX = {
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "Model": "feature-extraction",
}


def inspect_folder(folder: Path) -> Seen:
    """A folder of save_pretrained. Raises ValueError for another folder."""
    path = folder / "config.json"
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
        architectures = list(config.get("architectures") or [config["model_type"]])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError("no folder of a saved transformers model: config.json is missing or says no model") from error
    tasks = [task for suffix, task in TASK_OF_SUFFIX.items() if str(architectures[0]).endswith(suffix)]
    task = tasks[0] if tasks else "TASK"
    labels = config.get("id2label") or {}
    files = sorted(file.name for file in folder.iterdir())
    lines = [f"{folder}: transformers, {architectures[0]}", f"  files: {', '.join(files)}"]
    if labels:
        lines.append(f"  {len(labels)} labels: {', '.join(map(str, list(labels.values())[:10]))}")
    if not any(name.endswith(".safetensors") for name in files):
        lines.append("  no .safetensors: save it again by model.save_pretrained(folder)")
    command = f"python -m export hf {folder} --task {task}"
    return Seen(lines=tuple(lines), spec=f"# A transformers folder describes itself and needs no spec:\n# {command}\n")


def inspect_keras(path: Path) -> Seen:
    """A .keras file of Keras 3. Raises ValueError for another file."""
    try:
        with zipfile.ZipFile(path) as archive:
            config: Any = json.loads(archive.read("config.json"))
        layers = config["config"]["layers"]
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError("no .keras file of Keras 3: it holds no config.json with layers") from error
    names = [layer["class_name"] for layer in layers]
    shape = next((_input_shape(layer) for layer in layers if _input_shape(layer)), [])
    units = [layer["config"]["units"] for layer in layers if "units" in layer["config"]]
    lines = (f"{path}: Keras {config['class_name']}: {', '.join(names)}", f"  input {shape}")
    remark = f"{FILL_IN[2:]} image, series, text or table, if it reads these"
    reader = table("reader", {"kind": "tensors"}, {"kind": remark})
    if len(shape) == 3:
        reader = table("reader", {"kind": "series", "channels": shape[2]})
    labels = {"labels": f"{FILL_IN[2:]} their names; or another kind of head"}
    head = table("head", {"kind": "tensors"})
    if units:
        head = table("head", {"kind": "labels", "labels": units[-1]}, labels)
    return Seen(lines=lines, spec=f"{reader}\n{head}")


def _input_shape(layer: Any) -> list[Any]:
    return layer["config"].get("batch_shape") or layer["config"].get("batch_input_shape") or []
