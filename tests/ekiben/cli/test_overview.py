"""Help and version."""

import pytest

from ekiben.cli.overview import OVERVIEW, versions


def test_the_examples_of_the_overview_name_commands() -> None:
    assert all(f"  ekiben {name} " in OVERVIEW for name in ("train", "export", "inspect", "serve", "score"))


@pytest.mark.parametrize(("revision", "ending"), [("", "ekiben 7.1"), ("0123456789abcdef", " (revision 0123456789ab)")])
def test_the_revision_is_named_if_known(revision: str, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.container.build.own_version", lambda: "7.1")
    monkeypatch.setattr("service.container.build.own_revision", lambda: revision)
    assert versions().endswith(ending)
