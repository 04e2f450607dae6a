"""Builds the package: each dependency group becomes an extra of the same name, and the wheel records its revision.

`pip install ".[serve]"` and `pip install --group serve` install the same dependencies, from one list in pyproject.toml.
"""

import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

# The command's own, groups for work on the sources, and the part that `serve` and `gpu` share.
NO_EXTRAS = {"cli", "base", "dev", "docs"}


def requirements(groups: dict[str, list[Any]], name: str) -> list[str]:
    """The requirements of a group, with those of the groups that it includes."""
    found: list[str] = []
    for entry in groups[name]:
        found += requirements(groups, entry["include-group"]) if isinstance(entry, dict) else [entry]
    return found


class GroupsAsExtras(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        groups = tomllib.loads((Path(self.root) / "pyproject.toml").read_text())["dependency-groups"]
        extras = {name: requirements(groups, name) for name in groups if name not in NO_EXTRAS}
        metadata["dependencies"] = requirements(groups, "cli")
        metadata["optional-dependencies"] = extras


class RecordRevision(BuildHookInterface):
    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        command = ["git", "rev-parse", "--verify", "HEAD"]
        # Sources inside of another project's repository have no revision of theirs.
        if not (Path(self.root) / ".git").exists():
            return
        try:
            done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        except OSError:  # no git
            return
        if done.returncode == 0:
            self.folder = tempfile.TemporaryDirectory()
            file = Path(self.folder.name) / "REVISION"
            file.write_text(done.stdout)
            build_data["force_include"][str(file)] = "ekiben/REVISION"
