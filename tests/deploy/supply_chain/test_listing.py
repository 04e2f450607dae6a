"""The SBOM that the builder of an image prints."""

import json

import pytest

from deploy.supply_chain.listing import main, sbom_of


def test_it_prints_the_document_of_the_image(capsys: pytest.CaptureFixture[str]) -> None:
    main(["serve"])
    printed = capsys.readouterr().out
    assert printed == sbom_of("serve")
    document = json.loads(printed)
    assert document["metadata"]["component"]["name"] == "ekiben-serve"
    assert "onnxruntime" in {component["name"] for component in document["components"]}


def test_it_names_the_images_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["serves"])
    assert "invalid choice: 'serves' (choose from 'serve'" in capsys.readouterr().err
