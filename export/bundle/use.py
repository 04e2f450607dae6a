"""How a model is used, in words for its card: what it takes, what it answers, its route and its limits."""

from service.contract.heads import (
    EmbeddingHead,
    Head,
    ImageHead,
    LabelsHead,
    LanguageModelHead,
    MultilabelHead,
    TokenLabelsHead,
    ValuesHead,
)
from service.contract.readers import (
    MAX_FLOAT32,
    Column,
    ImageReader,
    ImageSpec,
    NumberColumn,
    SeriesReader,
    TableReader,
    TextReader,
)
from service.manifest import Manifest

# Of the columns of a table and the values of a category.
MAX_LISTED = 20


def describe_use(manifest: Manifest) -> str:
    """The section "Use" of a card."""
    limits = manifest.limits
    longest = "" if limits.max_steps is None else f", of at most {limits.max_steps} steps each"
    labels = manifest.labels
    label_list = f"\n\nLabels: {', '.join(f'`{label}`' for label in labels)}." if labels else ""
    items = "one item" if limits.max_items == 1 else f"at most {limits.max_items} items"
    route = f"Task `{manifest.task}`: `POST /{manifest.task}` with {items}{longest}."
    return f"{route}\n\nTakes {describe_reader(manifest)}. Answers {describe_head(manifest.head)}.{label_list}"


def describe_reader(manifest: Manifest) -> str:
    """What the model takes, in words that follow "takes"."""
    match manifest.reader:
        case ImageReader() as reader:
            return _picture(manifest, reader)
        case SeriesReader() as reader:
            state = "" if reader.state is None else f", with a state of {reader.state.layers} × {reader.state.hidden}"
            return f"series of {_count(reader.channels, 'number')} a step{state}"
        case TextReader() as reader:
            return f"texts, in the {reader.vocabulary:,} tokens of its tokenizer"
        case TableReader() as reader:
            return f"rows of {_count(len(reader.columns), 'column')}: {_columns(reader)}"
        case _:
            return f"tensors: {', '.join(f'`{spec.name}`' for spec in manifest.inputs)}{_axes(manifest)}"


def describe_head(head: Head) -> str:  # noqa: PLR0911
    """What the model answers, in words that follow "answers"."""
    match head:
        case LabelsHead():
            return f"the most probable of {_count(len(head.labels), 'label')}"
        case MultilabelHead():
            return f"each of {_count(len(head.labels), 'label')} whose probability is at least {head.threshold:g}"
        case ValuesHead():
            named = (
                f"`{name}`{f' in {unit}' if unit else ''}" for name, unit in zip(head.names, head.units, strict=True)
            )
            return f"{_count(len(head.names), 'number')}: {', '.join(named)}"
        case EmbeddingHead():
            return f"a vector of {_count(head.size, 'number')}{', of length 1' if head.normalized else ''}"
        case TokenLabelsHead():
            return f"one of {_count(len(head.labels), 'label')} for each token or step"
        case LanguageModelHead():
            end = f", which ends at the token {' or '.join(map(str, head.eos_ids))}" if head.eos_ids else ""
            return f"the continuation of a text{end}"
        case ImageHead():
            return f"a picture of {_size(head)}, mode {head.mode}"
        case _:
            return "its output tensors"


def _picture(manifest: Manifest, reader: ImageReader) -> str:
    if reader.resize is None:
        return f"pictures of {_size(reader)}, mode {reader.mode}{_axes(manifest)}"
    resize = reader.resize
    goal = f"{resize.size[0]} × {resize.size[1]}" if resize.size else f"{resize.shortest_edge} at the shortest edge"
    crop = f" and cut to {resize.crop[0]} × {resize.crop[1]} at the centre" if resize.crop else ""
    return f"pictures of any size, scaled to {goal} ({resize.resample}){crop}, mode {reader.mode}"


def _size(spec: ImageSpec) -> str:
    return f"{spec.height or 'any'} × {spec.width or 'any'} pixels (height × width)"


def _axes(manifest: Manifest) -> str:
    """The bounds of free axes, in brackets."""
    axes = [f"{axis} from {one}" for axis, one in manifest.limits.axes.items()]
    return f" ({', '.join(axes)})" if axes else ""


def _columns(reader: TableReader) -> str:
    listed = ", ".join(_column(column) for column in reader.columns[:MAX_LISTED])
    others = len(reader.columns) - MAX_LISTED
    return f"{listed} and {others} more" if others > 0 else listed


def _column(column: Column) -> str:
    if isinstance(column, NumberColumn):
        low = "" if column.low == -MAX_FLOAT32 else f" from {column.low:g}"
        high = "" if column.high == MAX_FLOAT32 else f" to {column.high:g}"
        return f"`{column.name}` (number{low}{high})"
    return f"`{column.name}` (one of {_count(len(column.values), 'value')})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
