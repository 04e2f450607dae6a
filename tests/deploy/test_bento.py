"""The image of the bento keeps what the image with bundles keeps."""

import re

import yaml

from tests.deploy.test_dockerfile import CPU, ROOT

BENTO = ROOT / "deploy/Dockerfile.bento"


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_bentofile_names_the_file() -> None:
    bentofile = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    assert bentofile["docker"]["dockerfile_template"] == "deploy/Dockerfile.bento"
    assert bentofile["python"]["requirements_txt"] == "constraints/serve.txt"
    assert "deploy/finish_environment.py" in bentofile["include"]


def test_base_and_tools_are_those_of_the_other_images() -> None:
    bento, cpu = BENTO.read_text(), CPU.read_text()
    stages = [text[text.index("ARG BASE=") : text.index("ENV FINISH=")] for text in (bento, cpu)]
    assert lines(stages[0]) == lines(stages[1])


def test_the_image_itself_is_the_service_of_the_other_file() -> None:
    cpu = lines(CPU.read_text())
    image = lines(BENTO.read_text().split("FROM base\n")[1])
    differing = [line for line in image if line not in cpu]
    assert differing == [
        "COPY --from=build /opt/ekiben /opt/ekiben",
        "COPY --from=build /app /app",
        "LABEL ekiben.sbom=/app/sbom.json",
    ]
    assert {re.split(r"[ =]", line)[0] for line in image} >= {
        "USER",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "STOPSIGNAL",
        "EXPOSE",
    }


def test_packages_are_installed_with_their_hashes() -> None:
    (install,) = re.findall(r"\$\{INSTALL\} (.*)", BENTO.read_text())
    assert install == "--no-deps --require-hashes -r /tmp/constraints/serve.txt"


def test_the_image_carries_the_list_of_what_its_lock_file_installs() -> None:
    bento, cpu = lines(BENTO.read_text()), lines(CPU.read_text())
    for line in cpu:
        if line.startswith("ENV LIST=") or line == "RUN ${LIST} serve > /app/sbom.json":
            assert line in bento
    include = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["include"]
    needed = {
        "deploy/__init__.py",
        "deploy/licences.toml",
        "deploy/supply_chain/*.py",
        "pyproject.toml",
        "constraints/serve.txt",
    }
    assert needed <= set(include), "what the listing reads"
