"""Make the base image of deploy/Dockerfile from Debian's packages, for machines without a container registry.

    python -m benchmarks.deploy.base_image [--cache FOLDER]

debootstrap installs Debian's minimal system from the mirror that apt uses. As in the published slim image,
documentation, translations and caches are left out. The certificate authorities of this machine are added, because its
mirrors may need them. The image gets the name that the Dockerfile asks for, so an engine that does not pull finds it.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

NAME = "docker.io/library/debian:bookworm-slim"
SUITE = "bookworm"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# What the published slim image leaves out, and what apt can download again.
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian")
EMPTIED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "tmp")


def make_root(folder: Path, mirror: str) -> None:
    """Install the system into `folder`."""
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, folder, mirror],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for name in LEFT_OUT:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in EMPTIED:
        for path in (folder / name).rglob("*"):
            if path.is_file():
                path.unlink()
    shutil.copyfile(CERTIFICATES, folder / CERTIFICATES.relative_to("/"))
    (folder / "etc/machine-id").unlink(missing_ok=True)
    # The one of the machine that runs the container is mounted there.
    (folder / "etc/resolv.conf").write_text("")


def mirror_of_apt() -> str:
    """The address of Debian's packages that apt of this machine uses."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)"], check=True, capture_output=True, text=True
    )
    return next(line.split()[0] for line in done.stdout.splitlines() if line.split()[1:] == [SUITE])


def make_image(folder: Path) -> None:
    """Commit the system in `folder` as the base image."""
    container = subprocess.run(
        ["buildah", "from", "scratch"], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        for command in (
            ["add", "--quiet", container, folder, "/"],
            ["config", "--cmd", "bash", container],
            ["commit", "--quiet", "--timestamp", "0", "--format", "docker", container, NAME],
        ):
            subprocess.run(["buildah", *command], check=True, stdout=subprocess.DEVNULL)
    finally:
        subprocess.run(["buildah", "rm", container], check=True, stdout=subprocess.DEVNULL)


def has_image(name: str = NAME) -> bool:
    return (
        subprocess.run(["buildah", "inspect", "--type", "image", name], capture_output=True, check=False).returncode
        == 0
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="folder that holds, or is to hold, the installed system")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.cache or Path(temporary) / "root"
        if not (root / "etc/debian_version").exists():
            make_root(root, mirror_of_apt())
        make_image(root)
    print(NAME)


if __name__ == "__main__":
    main()
