"""`python -m export hf FOLDER --task TASK`: the folder's source, or one sentence if `transformers` is not installed."""

from argparse import Namespace

from export.errors import ExportError
from export.sources.registry import Loaded


def load(options: Namespace) -> Loaded:
    """The source of the folder that the command line names. Raises ExportError."""
    try:
        from export.sources.huggingface.source import read_folder  # noqa: PLC0415 - only this command needs transformers
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ExportError(
            "load", "transformers is not installed: `pip install --group hf` installs it beside the packages of export"
        ) from error
    source = read_folder(
        options.model,
        options.task,
        name=options.name,
        max_steps=options.max_steps,
        examples_path=options.examples,
    )
    return Loaded(source=source)
