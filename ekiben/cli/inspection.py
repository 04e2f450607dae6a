"""`ekiben inspect`: show a bundle, after checking every file of it, or a first spec of a model file.

Exit status: 0 the bundle is whole, 1 it is not, or nothing is there, 2 wrong usage.
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ekiben.cli.report import describe_bundle, signature_state
from ekiben.cli.suggestions import did_you_mean
from service.bundle import open_bundle, version_folder
from service.errors import BundleError
from service.manifest import MANIFEST

ParserClass = type[argparse.ArgumentParser]


def command_parser(parser_class: ParserClass = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = parser_class(
        prog="ekiben inspect", description="Show a bundle: contract, proof, signature; or what a model file holds."
    )
    path_help = "a model's name, its folder, a version's folder, or a model file (.onnx, .pt2, .keras, .safetensors)"
    parser.add_argument("path", metavar="PATH", help=path_help)
    bundles = os.environ.get("EKIBEN_BUNDLES", "bundles")
    parser.add_argument("--bundles", type=Path, default=bundles, metavar="DIR", help="where names are looked up")
    parser.add_argument("--json", action="store_true", help="print the manifest and the signature's state as JSON")
    return parser


def main(argv: Sequence[str], parser_class: ParserClass = argparse.ArgumentParser) -> int:
    options = command_parser(parser_class).parse_args(argv)
    if Path(options.path).is_file():
        return int(importlib.import_module("export.__main__").main(["inspect", options.path], parser_class))
    try:
        folder = _resolve_folder(options.path, options.bundles)
        bundle = open_bundle(folder, require_signature=False)
        state = signature_state(folder)
    except (BundleError, OSError) as error:
        print(f"ekiben inspect: {error}", file=sys.stderr)
        return 1
    if options.json:
        manifest = json.loads((folder / MANIFEST).read_text())
        _print(json.dumps({"manifest": manifest, "signature": state}, indent=2))
    else:
        _print(describe_bundle(bundle, signature=state))
    return 0


def _print(text: str) -> None:
    """Print for a reader that may leave early, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python would write the rest again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _resolve_folder(path: str, bundles: Path) -> Path:
    """The folder of the version that `path` names. Raises BundleError."""
    places = [place for place in (Path(path), bundles / path) if place.is_dir()]
    if not places:
        known = sorted(pointer.parent.name for pointer in bundles.glob("*/current"))
        hint = did_you_mean(path, known) or f"; {bundles} has {', '.join(known) or 'no bundles'}"
        raise BundleError(f"{path} is neither a bundle nor a file{hint}")
    # A folder of this name may be something else, such as the saved model that the bundle was made from.
    chosen = next((place for place in places if (place / MANIFEST).exists() or (place / "current").exists()), places[0])
    return version_folder(chosen)
