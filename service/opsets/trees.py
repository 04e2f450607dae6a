"""Checks that the trees of an ensemble end: their nodes form no circle, and no path is longer than a bound.

onnxruntime follows the branches of a tree without counting its steps, so a branch that leads back to a node above it
would never end for the inputs that take it.
"""

from collections.abc import Iterator, Mapping, Sequence

from service.onnx_wire import Message

# A tree of scikit-learn has at most as many levels as its training set has rows, seldom more than 60.
MAX_DEPTH = 4096


def check_trees(label: str, attributes: Mapping[str, Message], content: bytes) -> None:
    """Check TreeEnsembleClassifier and TreeEnsembleRegressor. Raises ValueError.

    Nodes are named by the number of their tree and their own. Two branches may share a child: converters of LightGBM
    write sets of categories so.
    """
    names = ("nodes_treeids", "nodes_nodeids", "nodes_truenodeids", "nodes_falsenodeids")
    trees, ids, on_true, on_false = (_integers(attributes, name) for name in names)
    modes = [content[span] for span in _spans(attributes, "nodes_modes")]
    _check_lengths(label, {**dict(zip(names, (trees, ids, on_true, on_false), strict=True)), "nodes_modes": modes})
    places = {key: place for place, key in enumerate(zip(trees, ids, strict=True))}
    if len(places) < len(ids):
        raise ValueError(f"{label} has a node twice in one tree")
    children: list[tuple[int, ...]] = []
    for tree, mode, *branches in zip(trees, modes, on_true, on_false, strict=True):
        if mode == b"LEAF":
            children.append(())
            continue
        if absent := [node for node in branches if (tree, node) not in places]:
            raise ValueError(f"{label} has a branch to node {absent[0]} of tree {tree}, which does not exist")
        children.append(tuple(places[tree, node] for node in branches))
    _check_ends(label, children)


def check_ensemble(label: str, attributes: Mapping[str, Message]) -> None:
    """Check TreeEnsemble, of which onnxruntime copies every tree: no node and no root may come twice.

    Raises ValueError. Nodes and leaves are named by their places in two lists.
    """
    names = ("nodes_truenodeids", "nodes_trueleafs", "nodes_falsenodeids", "nodes_falseleafs", "nodes_featureids")
    lists = {name: _integers(attributes, name) for name in names}
    _check_lengths(label, lists)
    num_nodes, num_leaves = len(lists[names[0]]), len(_integers(attributes, "leaf_targetids"))
    children: list[tuple[int, ...]] = []
    for on_true, true_leaf, on_false, false_leaf, _ in zip(*lists.values(), strict=True):
        branches = ((on_true, true_leaf), (on_false, false_leaf))
        for child, is_leaf in branches:
            if not 0 <= child < (num_leaves if is_leaf else num_nodes):
                raise ValueError(f"{label} has a branch to {'leaf' if is_leaf else 'node'} {child}, which is absent")
        children.append(tuple(child for child, is_leaf in branches if not is_leaf))
    roots = _integers(attributes, "tree_roots")
    reached = [*roots, *(child for pair in children for child in pair)]
    if len(set(reached)) < len(reached):
        raise ValueError(f"{label} has a node that two branches or roots lead to")
    if absent := [root for root in roots if not 0 <= root < num_nodes]:
        raise ValueError(f"{label} has root {absent[0]}, which is absent")
    _check_ends(label, children)


def _check_lengths(label: str, lists: Mapping[str, Sequence[object]]) -> None:
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        raise ValueError(f"{label} has lists of nodes of different lengths, or none: {lengths}")


def _check_ends(label: str, children: Sequence[Sequence[int]]) -> None:
    """Raise ValueError if the nodes form a circle or a path of more than MAX_DEPTH; takes linear time."""
    num_parents, depths = [0] * len(children), [1] * len(children)
    for branches in children:
        for child in branches:
            num_parents[child] += 1
    pending = [node for node, parents in enumerate(num_parents) if not parents]
    num_visited = 0
    while pending:
        node = pending.pop()
        num_visited += 1
        for child in children[node]:
            depths[child] = max(depths[child], depths[node] + 1)
            num_parents[child] -= 1
            if not num_parents[child]:
                pending.append(child)
    if num_visited < len(children):
        raise ValueError(f"{label} has a tree that never ends: a branch leads back to a node above it")
    if (deepest := max(depths)) > MAX_DEPTH:
        raise ValueError(f"{label} has a tree of {deepest} levels, expected at most {MAX_DEPTH}")


def _integers(attributes: Mapping[str, Message], name: str) -> list[int]:
    return attributes[name].numbers("ints") if name in attributes else []


def _spans(attributes: Mapping[str, Message], name: str) -> Iterator[slice]:
    values = attributes[name].values.get("strings", ()) if name in attributes else ()
    return (value for value in values if isinstance(value, slice))
