"""Write an SBOM for each image and check the licences: python -m deploy.supply_chain [--out build/sbom]."""

import argparse
import sys
from pathlib import Path

from deploy.supply_chain.images import LOCK_FILES, packages_of
from deploy.supply_chain.licences import find_problems, read_licences
from deploy.supply_chain.listing import sbom_of


def main() -> None:
    """Write NAME.cdx.json for each image and licences.md; exit with 1 if a licence is unknown or not allowed."""
    parser = argparse.ArgumentParser(prog="python -m deploy.supply_chain", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--out", type=Path, default=Path("build/sbom"), help="folder of the documents")
    parser.add_argument("--image", choices=LOCK_FILES, action="append", help="only this image; may be repeated")
    args = parser.parse_args()
    images = {image: packages_of(image) for image in args.image or LOCK_FILES}
    licences = read_licences()
    if problems := [
        problem for image, packages in images.items() for problem in find_problems(image, packages, licences)
    ]:
        sys.exit("\n".join(problems))
    args.out.mkdir(parents=True, exist_ok=True)
    rows: dict[tuple[str, str], list[str]] = {}
    for image, packages in images.items():
        path = args.out / f"{image}.cdx.json"
        path.write_text(sbom_of(image))
        print(f"{path}: {len(packages)} packages")
        for package in packages:
            rows.setdefault((package.name, package.version), []).append(image)
    report = ["| package | version | licence | images |", "| --- | --- | --- | --- |"]
    report += [
        f"| {name} | {release} | {licences.packages[name]} | {', '.join(shipped)} |"
        for (name, release), shipped in sorted(rows.items())
    ]
    (args.out / "licences.md").write_text("\n".join(report) + "\n")
    print(f"{args.out / 'licences.md'}: {len(rows)} packages, every licence is allowed")


if __name__ == "__main__":
    main()
