"""The Dockerfiles keep what docs/containers.md promises of the images; benchmarks/deploy builds and runs them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.supply_chain.images import LOCK_FILES
from deploy.supply_chain.listing import sbom_of

ROOT = Path(__file__).parents[2]
CPU, GPU = ROOT / "deploy/Dockerfile", ROOT / "deploy/Dockerfile.gpu"
FILES = [CPU, GPU]
TARGETS = {CPU: {"service", "bundled", "scoring", "export"}, GPU: {"service", "bundled", "scoring"}}
BUILDING = {"build", "build-service", "build-scoring", "build-export"}  # stages whose file systems are in no image
Instruction = tuple[str, str]


def stages(file: Path) -> dict[str, tuple[str, list[Instruction]]]:
    """The name, parent and instructions of each stage."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, tuple[str, list[Instruction]]] = {}
    name = ""
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            parent, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]  # fails if unnamed
            found[name] = (parent, [])
        elif name:
            found[name][1].append((word, rest))
    return found


def instructions(file: Path, target: str) -> list[Instruction]:
    """The instructions of a target and of all stages that it is made from, in order."""
    parent, own_instructions = stages(file)[target]
    return (instructions(file, parent) if parent in stages(file) else []) + own_instructions


IMAGES = [(file, target) for file in FILES for target in sorted(TARGETS[file])]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_every_stage_is_a_target_or_only_builds(file: Path) -> None:
    assert set(stages(file)) == TARGETS[file] | BUILDING & set(stages(file)) | {"base", "image"}


@pytest.mark.parametrize(("file", "target"), IMAGES)
def test_an_image_runs_as_a_user_by_number_under_an_init(file: Path, target: str) -> None:
    found = dict(instructions(file, target))
    user, group = map(int, found["USER"].split(":"))
    assert min(user, group) >= 1000
    assert json.loads(found["ENTRYPOINT"])[:4] == ["/usr/bin/tini", "--", "python", "-m"]
    assert "CMD" not in found


@pytest.mark.parametrize(("file", "target"), IMAGES)
def test_an_image_installs_nothing_but_the_interpreter_and_copies_the_rest(file: Path, target: str) -> None:
    """Compilers, pip and git are in the stages that build, which are in no image."""
    (run,) = [rest for word, rest in instructions(file, target) if word == "RUN"]
    (packages,) = re.findall(r"apt-get install (.*?)&&", run)
    assert [word for word in packages.split() if not word.startswith("-")] == ["ca-certificates", "python3", "tini"]
    assert "--no-install-recommends" in packages
    copies = [rest for word, rest in instructions(file, target) if word in {"COPY", "ADD"}]
    assert copies
    assert all(rest.startswith("--from=build-") or rest == "bundles /bundles" for rest in copies)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_packages_are_installed_with_the_hashes_of_the_lock_files(file: Path) -> None:
    text = file.read_text()
    installs = re.findall(r"\$\{INSTALL\} (.*)", text)
    for install in installs:
        if install == "torch -c /tmp/constraints/torch.txt":  # docs/decisions/0005 says why it has no hash
            assert file == CPU
            continue
        lock = re.fullmatch(r"--no-deps --require-hashes -r /tmp/constraints/([a-z]+)\.txt", install)
        assert lock, install
        assert (ROOT / "constraints" / f"{lock[1]}.txt").is_file()
    assert len(installs) == {CPU: 4, GPU: 1}[file]
    assert "--only-binary=:all:" in text


@pytest.mark.parametrize(("file", "target"), IMAGES)
def test_an_image_carries_and_names_the_list_of_what_its_lock_file_installs(file: Path, target: str) -> None:
    labels = " ".join(rest for word, rest in instructions(file, target) if word == "LABEL")
    assert "ekiben.sbom=/app/sbom.json" in labels
    (building,) = {name for _, rest in instructions(file, target) for name in re.findall(r"--from=(\S+) /app", rest)}
    runs = [rest for word, rest in stages(file)[building][1] if word == "RUN"]
    (image,) = [found[1] for run in runs if (found := re.fullmatch(r"\$\{LIST\} (\w+) > /app/sbom.json", run))]
    assert f"/tmp/constraints/{LOCK_FILES[image]}" in " ".join(runs)


def test_the_builder_lists_packages_without_any_package(tmp_path: Path) -> None:
    """The files that the Dockerfile copies are enough, and the list is the one that `make sbom` writes."""
    for name in ("deploy/__init__.py", "deploy/licences.toml", "deploy/supply_chain", "pyproject.toml", "constraints"):
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, place)
    command = [sys.executable, "-S", "-m", "deploy.supply_chain.listing", "serve"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == sbom_of("serve")


@pytest.mark.parametrize(("file", "target"), [(CPU, "service"), (CPU, "scoring"), (GPU, "service"), (GPU, "scoring")])
def test_images_that_serve_and_score_have_no_torch_and_no_training_code(file: Path, target: str) -> None:
    copied = [rest for word, rest in stages(file)[target][1] if word == "COPY"]
    building = re.findall(r"--from=(\S+)", " ".join(copied))
    assert building
    for stage in building:
        for _, rest in stages(file)[stage][1]:
            assert not re.search(r"torch|export|training", rest)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_the_service_has_a_health_check_and_the_labels_of_oci(file: Path) -> None:
    found = instructions(file, "service")
    (check,) = [rest for word, rest in found if word == "HEALTHCHECK"]
    assert json.loads(check.split("CMD ")[1]) == ["python", "-m", "service.container.health"]
    labels = " ".join(rest for word, rest in found if word == "LABEL")
    for name in ("title", "description", "version", "revision", "licenses", "base.name"):
        assert f"org.opencontainers.image.{name}=" in labels


def test_the_two_files_differ_in_what_a_gpu_needs() -> None:
    """Whoever changes one has to change the other."""
    cpu, gpu = (stages(file) for file in FILES)
    for name in ("base", "build"):
        assert cpu[name] == gpu[name]
    for name in ("image", "service", "bundled"):
        for (word, in_cpu), (other, in_gpu) in zip(cpu[name][1], gpu[name][1], strict=True):
            assert word == other
            if in_cpu != in_gpu:
                assert word in {"ENV", "LABEL"}
                assert re.search("NVIDIA_|EKIBEN_DEVICE=cuda|ekiben-gpu", in_gpu)


def test_the_builder_is_sent_every_file_that_is_copied_and_no_other_folder() -> None:
    sent = {line[1:].split("/*")[0] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = {
        word
        for file in FILES
        for _, found in stages(file).values()
        for kind, rest in found
        if kind == "COPY" and not rest.startswith("--from")
        for word in rest.split()[:-1]
    }
    assert {name.split("/")[0] if name.startswith("constraints/") else name for name in copied} == sent


def test_the_version_of_the_label_is_that_of_the_project() -> None:
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    for file in FILES:
        assert f"ARG VERSION={version[1]}\n" in file.read_text()


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("docker", "docker build --output type=docker,rewrite-timestamp=true"),
        ("podman", "podman build --format docker --timestamp 7"),
        ("buildah", "buildah build --format docker --timestamp 7"),
    ],
)
def test_make_container_builds_both_files_with_any_engine(engine: str, expected: str) -> None:
    command = [
        "make",
        "--no-print-directory",
        "-n",
        "container",
        f"CONTAINER={engine}",
        "SOURCE_DATE_EPOCH=7",
        "TARGET=scoring",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    cpu, gpu = done.stdout.splitlines()
    assert cpu.startswith(expected)
    assert cpu.endswith("-t ekiben-scoring:0.1.0 -f deploy/Dockerfile .")
    assert gpu.endswith("-t ekiben-scoring-gpu:0.1.0 -f deploy/Dockerfile.gpu .")
    assert " --target scoring " in cpu


def test_make_container_without_an_engine_says_what_it_needs() -> None:
    command = ["make", "container-cpu", "CONTAINER="]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "make container needs docker, podman or buildah" in done.stderr
