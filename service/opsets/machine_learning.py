"""The operators of the domain `ai.onnx.ml`, which scikit-learn models and the like use.

Invariant: each makes tensors alone, of a size that its file bounds, in a time that its file bounds.
"""

from collections.abc import Mapping, Sequence

from service.onnx_wire import Message
from service.opsets.trees import check_ensemble, check_trees

_ADMITTED = """
ArrayFeatureExtractor Binarizer CategoryMapper FeatureVectorizer Imputer LabelEncoder LinearClassifier LinearRegressor
Normalizer OneHotEncoder Scaler TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor
"""
OPERATORS = frozenset(_ADMITTED.split())
# Attributes that are sizes of an output; all other integers are categories, labels and positions.
SIZES = {"n_targets", "targets", "inputdimensions"}
MAX_COLUMNS = 1 << 20


def check_operator(label: str, operator: str, attributes: Mapping[str, Message], content: bytes) -> None:
    """Raise ValueError unless the operator is admitted and its attributes bound its time and its output."""
    if operator == "ZipMap":
        raise ValueError(f"{label} makes maps, expected tensors; convert with zipmap=False")
    if operator not in OPERATORS:
        raise ValueError(f"{label} is not an admitted operator of ai.onnx.ml; those are {', '.join(sorted(OPERATORS))}")
    for name in sorted(SIZES & attributes.keys()):
        sizes = [*attributes[name].numbers("i"), *attributes[name].numbers("ints")]
        if not sizes or min(sizes) < 1 or sum(sizes) > MAX_COLUMNS:
            raise ValueError(f"{label}: {name!r} is {_first(sizes)}, expected 1 to {MAX_COLUMNS} in sum")
    if operator == "TreeEnsemble":
        check_ensemble(label, attributes)
    elif operator.startswith("TreeEnsemble"):
        check_trees(label, attributes, content)


def _first(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes[:10])) or "missing"
