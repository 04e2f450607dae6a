"""Reading of .keras files, without running any code that they hold.

A .keras file is a zip archive with the configuration of the layers (config.json) and their weights. Every class that
the configuration names is checked before Keras makes an object of it: layers must have a twin, all else must be Keras'
own. Keras' safe mode stays on.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.sources.keras.layers.registry import CONVERTERS
from export.sources.keras.layers.values import STAGE
from training.keras_models.backend import import_keras

CONFIG = "config.json"
MAX_CONFIG_BYTES = 1 << 26
MODELS = ("Sequential", "Functional")
WAY_OUT = "export the model as an nn.Module (python -m export module) or as ONNX (python -m export onnx)"


def load_model(path: Path) -> Any:
    """The model of a .keras file, on the CPU. Raises ExportError if it is none, or has a layer without a twin."""
    _check_config(path, _read_config(path))
    keras = import_keras()
    try:
        with keras.device("cpu"):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    # Keras raises whatever its layers raise for a wrong configuration.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(STAGE, f"Keras cannot load {path}: {reason}") from error
    if not getattr(model, "inputs", None):
        raise ExportError(
            STAGE,
            f"{path}: the model has no Input, so its weights do not exist yet; begin it with keras.Input and save it",
        )
    return model


def _read_config(path: Path) -> Any:
    if not path.is_file():
        raise ExportError(STAGE, f"{path}: expected a .keras file, found nothing")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ExportError(STAGE, f"{path} is no .keras file; save the model with model.save('model.keras') in Keras 3")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(CONFIG).file_size > MAX_CONFIG_BYTES:
                raise ExportError(STAGE, f"{path}: its {CONFIG} has more than {MAX_CONFIG_BYTES >> 20} MiB")
            return json.loads(archive.read(CONFIG))
    except (KeyError, ValueError, OSError, RecursionError, zipfile.BadZipFile) as error:
        if isinstance(error, ExportError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ExportError(
            STAGE, f"{path} is damaged: {CONFIG} cannot be read ({reason}); save the model again"
        ) from error


def _check_config(path: Path, config: Any) -> None:
    """Raises ExportError for a class that is neither a layer with a twin nor Keras' own."""
    if not isinstance(config, dict) or config.get("class_name") not in MODELS:
        name = config.get("class_name") if isinstance(config, dict) else None
        raise ExportError(
            STAGE, f"{path} holds a model of class {name!r}, expected Sequential or Functional; {WAY_OUT}"
        )
    for entry in _objects({key: value for key, value in config.items() if key != "compile_config"}):
        name, module = entry["class_name"], entry.get("module")
        label = _label(entry)
        if name in ("Lambda", "__lambda__"):
            raise ExportError(
                STAGE, f"{path}: {label} holds Python code, which is never run; use built-in layers, or {WAY_OUT}"
            )
        # Keras names its own functions by words alone, and its own classes without a registered name.
        is_own = (module is None and name.startswith("__")) or str(module).split(".")[0] == "keras"
        if not is_own or entry.get("registered_name") not in (None, name):
            raise ExportError(STAGE, f"{path}: {label} is a custom object, which has no twin; {WAY_OUT}")
        if str(module).startswith("keras.layers") and name not in (*CONVERTERS, "InputLayer"):
            raise ExportError(
                STAGE, f"{path}: {label} has no twin; layers with one are {', '.join(sorted(CONVERTERS))}; {WAY_OUT}"
            )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every serialized object, at any depth."""
    if isinstance(value, dict):
        if isinstance(value.get("class_name"), str) and "config" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _objects(part)


def _label(entry: dict[str, Any]) -> str:
    config = entry.get("config")
    name = config.get("name") if isinstance(config, dict) else config
    return f"layer {name!r} ({entry['class_name']})" if name else str(entry["class_name"])
