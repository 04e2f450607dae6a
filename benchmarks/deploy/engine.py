"""Build and run images with buildah, podman and runc, without a registry and without systemd.

Containers run as production should run them: as the image's user, on a read-only root, without capabilities, with a
limit of memory and CPU time, and with /tmp as the only place to write.
"""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from benchmarks.deploy.base_image import CERTIFICATES, has_image
from tests.e2e.serving import ROOT

PROGRAMS = ("buildah", "podman", "runc", "debootstrap")
PODMAN = ("podman", "--cgroup-manager", "cgroupfs", "--runtime", "runc")
BUILDER = {"BUILDAH_ISOLATION": "chroot"}
# The limits of open files and processes are those that a container without privileges may set.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
HARDENED = (
    "--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp",
    "--cap-drop", "all", "--security-opt", "no-new-privileges",
)  # fmt: skip


def unmet_requirement() -> str | None:
    """Why images cannot be built and run here, or None."""
    if os.geteuid() != 0:
        return "only root can make the base image"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"install {', '.join(absent)}" if absent else None


def output(*command: str | Path) -> str:
    """Run a command that is to succeed; return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def make_base(cache: Path | None) -> None:
    """Make the base image, unless it is there."""
    if not has_image():
        command = [sys.executable, "-m", "benchmarks.deploy.base_image"]
        subprocess.run(command + (["--cache", str(cache)] if cache else []), cwd=ROOT, check=True)


def build(
    image: str, *, target: str = "service", cached: bool = False, form: Literal["docker", "oci"] = "docker"
) -> str:
    """Build a target of deploy/Dockerfile with `make container-cpu`; return the id, a digest of all that is in it.

    Docker's format holds random names of the builder's containers, and OCI's has no health check.
    """
    flags = f"--pull-never --network host --format {form}" + ("" if cached else " --no-cache")
    with pip_settings() as pip_conf:
        subprocess.run(
            ["make", "-s", "container-cpu", "CONTAINER=buildah", f"TARGET={target}", f"IMAGE={image}",
             f"PIP_CONF={pip_conf}", f"BUILD_FLAGS={flags}"],
            cwd=ROOT, env={**os.environ, **BUILDER}, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    return output("buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", f"{image}:0.1.0")


def build_bento(image: str) -> None:
    """Build the bento of bentofile.yaml, with the bundles of this checkout, and its image."""
    bentoml = Path(sys.executable).with_name("bentoml")
    with tempfile.TemporaryDirectory() as home, pip_settings() as pip_conf:
        run = functools.partial(
            subprocess.run, env={**os.environ, **BUILDER, "BENTOML_HOME": home}, stdout=subprocess.DEVNULL, check=True
        )
        run([bentoml, "build", "--version", "prove"], cwd=ROOT)
        # BentoML unpacks a bento in a temporary folder, and takes templates from below the working directory only.
        run(
            [bentoml, "containerize", "ekiben:prove", "--backend", "buildah", "--image-tag", image,
             "--opt", "format=docker", "--opt", "network=host", "--opt", f"secret=id=pip,src={pip_conf}"],
            cwd=tempfile.gettempdir(),
        )  # fmt: skip


@contextmanager
def pip_settings() -> Iterator[Path]:
    """Settings of pip for the builder, which trusts what this machine trusts."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(f"[global]\ncert = {CERTIFICATES}\ntimeout = 180\n")
        file.flush()
        yield Path(file.name)


def layers_of(image: str) -> str:
    """The digests of the unpacked layers."""
    return output("buildah", "inspect", "--type", "image", "--format", "{{.OCIv1.RootFS.DiffIDs}}", image)


def size_bytes(image: str) -> int:
    """The size of all layers, unpacked."""
    return int(output("podman", "image", "inspect", "--format", "{{.Size}}", image))


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """The file system of an image."""
    container = output("buildah", "from", "--pull-never", image)
    try:
        yield Path(output("buildah", "mount", container))
    finally:
        output("buildah", "rm", container)


@contextmanager
def running(
    image: str, name: str, *, memory: str, cpus: str, options: Sequence[str] = (), arguments: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a container that shares the network of this machine; its log goes to stderr."""
    command = [
        *PODMAN, "run", "--rm", "--name", name, "--pull", "never", "--network", "host",
        "--no-healthcheck",  # its timer needs systemd
        *HARDENED, *LIMITS, "--memory", memory, "--cpus", cpus, *options, image, *arguments,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        subprocess.run([*PODMAN, "kill", name], capture_output=True, check=False)
        process.wait(60)


def run_inside(name: str, *command: str) -> str:
    """Run a command in a container; return what it prints."""
    return output(*PODMAN, "exec", name, *command)
