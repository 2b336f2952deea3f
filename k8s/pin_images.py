"""Looks up what the tags of images mean now, and writes it as a kustomize component.

    python -m k8s.pin_images MY_OVERLAY/images

FOLDER/tags.yaml says which image stands for each one that the manifests name. FOLDER/kustomization.yaml is written: the
same by digest. `crane`, `skopeo` or `docker` asks the registries, whichever is installed, with its own credentials.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

COMMANDS = {
    "crane": ["digest"],
    "skopeo": ["inspect", "--no-tags", "--format={{.Digest}}"],
    "docker": ["buildx", "imagetools", "inspect", "--format={{.Manifest.Digest}}"],
}
"""What prints the digest of an image, of all its platforms where it has several."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TAGGED = re.compile(r"(?P<name>[^\s@]+):(?P<tag>[\w][\w.-]*)", re.ASCII)
HEADER = "# Written by `python -m k8s.pin_images`, from tags.yaml.\n"


class PinError(Exception):
    """An image has no digest to be had; the message names it."""


def pin(folder: Path) -> dict[str, str]:
    """Writes the component and gives the digest of each image. Raises PinError."""
    source = folder / "tags.yaml"
    try:
        tags = yaml.safe_load(source.read_text())
    except OSError as error:
        raise PinError(f"{source}: {error.strerror}") from None
    if not isinstance(tags, dict) or not tags:
        raise PinError(f"{source}: must map the images of the manifests to images with tags")
    entries = []
    for name, image in tags.items():
        match = TAGGED.fullmatch(str(image))
        if match is None:
            raise PinError(f"{source}: {name}: {image!r} is not allowed; allowed: NAME:TAG")
        entries.append({"name": name, "newName": match["name"], "digest": _digest(str(image))})
    content = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", "images": entries}
    (folder / "kustomization.yaml").write_text(HEADER + yaml.safe_dump(content, sort_keys=False))
    return {str(tags[entry["name"]]): entry["digest"] for entry in entries}


def _digest(image: str) -> str:
    tool = next((name for name in COMMANDS if shutil.which(name)), None)
    if tool is None:
        raise PinError(f"none of {', '.join(COMMANDS)} is installed: one of them has to ask the registry")
    asked = f"docker://{image}" if tool == "skopeo" else image
    done = subprocess.run([tool, *COMMANDS[tool], asked], capture_output=True, text=True, check=False)
    found = done.stdout.strip()
    if done.returncode != 0 or DIGEST.fullmatch(found) is None:
        raise PinError(f"{image}: {tool} gave no digest: {done.stderr.strip() or found}")
    return found


def main() -> None:
    """Raises SystemExit, with the reason, if something is wrong."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m k8s.pin_images FOLDER")
    try:
        for image, digest in pin(Path(sys.argv[1])).items():
            print(f"{image} is {digest}")
    except PinError as error:
        sys.exit(f"pin_images: {error}")


if __name__ == "__main__":
    main()
