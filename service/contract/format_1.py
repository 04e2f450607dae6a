"""Manifests of format 1, which named one of six families: read as reader and head, with their versions unchanged."""

from collections.abc import Mapping
from typing import Any

FAMILY_OF_PAIR = {
    ("image", "labels"): "image-classifier",
    ("series", "labels"): "series-classifier",
    ("series", "token-labels"): "series-tagger",
    ("text", "labels"): "text-classifier",
    ("text", "language-model"): "language-model",
    ("tensors", "image"): "image-generator",
}


def upgrade(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a manifest of format 1 with a reader and a head in place of its parameters.

    Raises ValueError or KeyError if it names no family or lacks one of its parameters.
    """
    fields = {name: value for name, value in content.items() if name not in {"task", "parameters"}}
    parameters = dict(content["parameters"])
    family = parameters.pop("family")
    labels = parameters.pop("labels", None)
    match family:
        case "image-classifier":
            reader = {"kind": "image", **parameters.pop("image")}
            head = {"kind": "labels", "labels": labels}
        case "series-classifier":
            reader = {"kind": "series", "channels": parameters.pop("channels")}
            head = {"kind": "labels", "labels": labels}
        case "series-tagger":
            state = {name: parameters.pop(name) for name in ("layers", "hidden")}
            reader = {"kind": "series", "channels": parameters.pop("channels"), "state": state}
            head = {"kind": "token-labels", "labels": labels}
        case "text-classifier":
            reader = {"kind": "text", "vocabulary": parameters.pop("vocabulary")}
            head = {"kind": "labels", "labels": labels}
        case "language-model":
            reader = {"kind": "text", "vocabulary": parameters.pop("vocabulary")}
            head = {
                "kind": "language-model",
                **{name: parameters.pop(name) for name in ("layers", "heads", "head_size")},
            }
        case "image-generator":
            latent_size = parameters.pop("latent_size")
            if [spec["shape"] for spec in content["inputs"]] != [["batch", latent_size]]:
                raise ValueError(f"inputs are not those of an image-generator of latent size {latent_size}")
            reader = {"kind": "tensors"}
            head = {"kind": "image", **parameters.pop("image")}
        case _:
            raise ValueError(f"family is {family!r}, expected one of {sorted(FAMILY_OF_PAIR.values())}")
    if parameters:
        raise ValueError(f"a {family} has no parameters {sorted(parameters)}")
    return {**fields, "reader": reader, "head": head}


def downgrade(content: dict[str, Any], task: str) -> dict[str, Any]:
    """Return the dumped fields of a manifest that was read from format 1 as they were written, for its version."""
    fields = {name: value for name, value in content.items() if name not in {"reader", "head"}}
    reader, head = content["reader"], content["head"]
    family = FAMILY_OF_PAIR[reader["kind"], head["kind"]]
    size = {name: (reader if family == "image-classifier" else head).get(name) for name in ("height", "width", "mode")}
    parameters: dict[str, Any] = {"family": family}
    if "labels" in head:
        parameters["labels"] = head["labels"]
    match family:
        case "image-classifier":
            parameters["image"] = size
        case "series-classifier":
            parameters["channels"] = reader["channels"]
        case "series-tagger":
            parameters |= {"channels": reader["channels"], **reader["state"]}
        case "text-classifier":
            parameters["vocabulary"] = reader["vocabulary"]
        case "language-model":
            parameters |= {"vocabulary": reader["vocabulary"]}
            parameters |= {name: head[name] for name in ("layers", "heads", "head_size")}
        case "image-generator":
            parameters |= {"latent_size": fields["inputs"][0]["shape"][1], "image": size}
    return {**fields, "task": task, "parameters": parameters}
