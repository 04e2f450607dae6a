"""Export the modules of benchmarks.export.modules through all gates, and measure time and memory.

    python -m benchmarks.export.adopted_modules [NAME...] [--folder FOLDER]

Each bundle then answers its first examples by the session that serves it, compared with the module itself in eager
PyTorch. ResNet-18 also answers JPEG files of several sizes through the declared resize, compared with Pillow and
PyTorch. Exit status 1 if a model is refused, answers differently, or takes more than 2 GiB.
"""

import argparse
import base64
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.export.adopted import GIB, ROOT, ask, load_model
from benchmarks.export.modules import MODELS, build, write_files
from export.sources.arguments import add_module_arguments
from export.sources.module.source import load
from service.engine.sessions.model import Model

MAX_BYTES = 2 * GIB
NUM_ROWS = 4
ATOL, RTOL = 1e-5, 1e-4
JPEG_SIZES = ((480, 640), (300, 224), (1000, 600))
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def check_rows(words: list[str], model: Model) -> str | None:
    """Compare the outputs of the session with those of the module; return what differs, or None."""
    parser = argparse.ArgumentParser()
    add_module_arguments(parser)
    source = load(parser.parse_args(words)).source
    arrays = source.examples.inputs
    sizes = {axis: int(arrays[axis][0]) for axis in source.limits.axes if axis in arrays}
    rows = {}
    for spec in source.inputs:
        cut = tuple(slice(sizes.get(axis) if isinstance(axis, str) else None) for axis in spec.row_shape)
        rows[spec.name] = np.ascontiguousarray(arrays[spec.name][:NUM_ROWS][:, *cut])
    expected, answer = source.predict(rows), model.session.run(rows)
    lengths = rows.get("lengths")
    for spec in source.outputs:
        pair = [expected[spec.name].astype(np.float64), answer[spec.name].astype(np.float64)]
        if lengths is not None and spec.row_shape[:1] == ("steps",):
            # Outputs behind the end of a row are undefined.
            pair = [values[np.arange(values.shape[1]) < lengths[:, None]] for values in pair]
        # Pixels may differ by one level, where a number is rounded.
        atol = 1 if spec.dtype == "uint8" else ATOL
        if not np.allclose(*pair[::-1], atol=atol, rtol=RTOL):
            return f"{spec.name} differs by {np.abs(pair[0] - pair[1]).max():.1e}"
    return None


def check_jpegs(model: Model) -> str | None:
    """Compare the answers to JPEG files of several sizes with Pillow and PyTorch doing the same."""
    module, rng = build(model.manifest.name), np.random.default_rng(1)
    for height, width in JPEG_SIZES:
        coarse = rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG")
        answer = ask(model, images=[base64.b64encode(file.getvalue()).decode()])["predictions"][0]
        picture = Image.open(file).convert("RGB")
        short = min(height, width)
        # torchvision rounds the long edge down.
        size = (256 * width // short, 256 * height // short)
        picture = picture.resize(size, Image.Resampling.BILINEAR)
        left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
        pixels = torch.from_numpy(np.array(picture.crop((left, top, left + 224, top + 224))))
        x = (pixels.permute(2, 0, 1).float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
            :, None, None
        ]
        with torch.no_grad():
            probabilities = module(x[None]).softmax(1)[0]
        expected = float(probabilities[int(answer["label"])])
        if int(probabilities.argmax()) != int(answer["label"]) or abs(expected - answer["probability"]) > ATOL:
            return f"a JPEG of {height} × {width} is {answer['label']} with {answer['probability']}, not {expected}"
    return None


def export_module(words: list[str], bundles: Path) -> tuple[float, int, str | None]:
    """Seconds and peak bytes of the export, and what is not as it should be."""
    command = [sys.executable, "-m", "export", "module", *words, "--bundles", str(bundles)]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds, peak_bytes = time.perf_counter() - started, usage.ru_maxrss * 1024
    if os.waitstatus_to_exitcode(status):
        return seconds, peak_bytes, "refused"
    return seconds, peak_bytes, f"more than {MAX_BYTES / GIB:.1f} GiB" if peak_bytes > MAX_BYTES else None


def check(words: list[str], model: Model) -> str | None:
    """What differs from the module, or None."""
    fault = check_rows(words, model)
    return check_jpegs(model) if fault is None and model.manifest.name == "resnet" else fault


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*MODELS, []], metavar="NAME", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--folder", type=Path, help="a folder for the files and bundles (default: a temporary one)")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="adopted-") as temporary:
        root = options.folder or Path(temporary)
        print(f"{'model':24} {'seconds':>8} {'peak GiB':>9}  answers")
        for name in options.names or MODELS:
            words = write_files(name, root / name)
            seconds, peak_bytes, fault = export_module(words, root / "bundles")
            if fault is None:
                fault = check(words, load_model(root / "bundles", name))
            print(f"{name:24} {seconds:8.0f} {peak_bytes / GIB:9.2f}  {fault or 'as the module'}", flush=True)
            failed += fault is not None
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
