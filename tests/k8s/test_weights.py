"""The weights' download, run with a stand-in for the Hub: what comes, and what is refused."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helios_engine.checkpoint.resolve import FILES
from k8s.build import K8S, ROOT, build
from k8s.manifests import Manifests

SCRIPT = K8S / "base/weights/fetch.sh"
COMMIT = "5e" * 20
HF = """#!{python}
import shutil, sys
from fnmatch import fnmatch  # as the Hub's client does
from pathlib import Path

command, repo, *options = sys.argv[1:]
pairs = list(zip(options[::2], options[1::2], strict=True))
(target,) = (Path(value) for name, value in pairs if name == "--local-dir")
patterns = [value for name, value in pairs if name == "--include"]
hub = Path({hub!r})
files = [str(path.relative_to(hub)) for path in hub.rglob("*") if path.is_file()]
files = [file for file in files if any(fnmatch(file, one) for one in patterns)]
for file in [*files, ".cache/huggingface/lock"]:
    (target / file).parent.mkdir(parents=True, exist_ok=True)
    if not file.startswith("."):
        shutil.copy(hub / file, target / file)
"""
"""Takes from a folder what is asked for."""
CHECK = """#!{python} -I
import importlib.util, sys, types
from pathlib import Path

sys.path.append({root!r})
root = Path({root!r})
package = types.ModuleType("helios_engine.checkpoint")  # its own code would load torch, which takes a while
package.__path__ = [str(root / "helios_engine/checkpoint")]
sys.modules["helios_engine.checkpoint"] = package
from helios_engine.checkpoint.manifest import check_manifest

assert sys.argv[1:3] == ["check", "--sha256"]
for name in check_manifest(sys.argv[3]).unlisted:
    print(f"SHA256SUMS: {{name}} is not listed")
"""
"""The half of `helios check --sha256` that is about sums. Tests of the other half, and of its words, run it itself."""


class Setting:
    """A Hub with a repository, a volume, and a folder with the script."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.hub, self.tools, self.scripts = folder / "hub", folder / "tools", folder / "scripts"
        self.target = folder / "models/w"
        self.recorded = folder / f"models/w.{COMMIT}.SHA256SUMS"
        shutil.copytree(checkpoint, self.hub)
        weights = sorted(self.hub.glob("transformer/*.safetensors"))[0]
        self.weights = str(weights.relative_to(self.hub))
        for name in ("README.md", "transformer/model.bin", "transformer_ode/model.safetensors", "SHA256SUMS"):
            (self.hub / name).parent.mkdir(exist_ok=True)
            (self.hub / name).write_text("not read\n")
        for made in (self.tools, self.scripts):
            made.mkdir()
        shutil.copy(SCRIPT, self.scripts)
        self.tool("hf", HF.format(python=sys.executable, hub=str(self.hub)))
        self.tool("helios", CHECK.format(python=sys.executable, root=str(ROOT)))

    def tool(self, name: str, program: str) -> None:
        (self.tools / name).write_text(program)
        (self.tools / name).chmod(0o755)

    def run(self, **environ: str) -> "subprocess.CompletedProcess[str]":
        installed = Path(sys.executable).parent  # `helios` itself, also where the environment is not activated
        given = {"REPO": "BestWishYSH/Helios-Distilled", "REVISION": COMMIT, "TARGET": str(self.target)} | environ
        env = {**os.environ, **given, "PATH": f"{self.tools}:{installed}:{os.environ['PATH']}"}
        return subprocess.run(
            ["sh", str(self.scripts / "fetch.sh")], env=env, capture_output=True, text=True, timeout=250
        )

    def refused(self, says: str, **environ: str) -> None:
        done = self.run(**environ)
        assert done.returncode != 0, done.stdout
        assert says in done.stderr

    def sums(self, *left_out: str) -> str:
        """The sums of the files on the Hub that are read, as an operator has them."""
        names = [name for name in self.read() if name not in left_out]
        return subprocess.run(["sha256sum", *names], cwd=self.hub, capture_output=True, text=True, check=True).stdout

    def read(self) -> list[str]:
        names = [str(path.relative_to(self.hub)) for path in self.hub.rglob("*") if path.is_file()]
        return sorted(n for n in names if n != "SHA256SUMS" and any(fnmatch.fnmatch(n, one) for one in FILES))

    def damage(self, folder: Path) -> None:
        """Changes a number among the weights: the header stays sound."""
        file = folder / self.weights
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)


@pytest.fixture
def setting(tmp_path: Path, checkpoint: Path) -> Setting:
    return Setting(tmp_path, checkpoint)


def test_the_first_download_is_recorded_and_holds_from_then_on(setting: Setting) -> None:
    first = setting.run()
    assert first.returncode == 0, first.stderr
    there = sorted(str(path.relative_to(setting.target)) for path in setting.target.rglob("*") if path.is_file())
    assert there == sorted([*setting.read(), "SHA256SUMS"])
    assert setting.weights in setting.recorded.read_text()
    assert sorted(path.name for path in setting.target.parent.iterdir()) == ["w", setting.recorded.name]

    hf = (setting.tools / "hf").read_text()
    setting.tool("hf", "#!/bin/sh\nexit 9\n")
    again = setting.run()
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.endswith(f"weights: {setting.target} is there\n")

    setting.damage(setting.target)
    setting.refused(f"{setting.weights}: has SHA-256")

    shutil.rmtree(setting.target)
    setting.tool("hf", hf)
    setting.damage(setting.hub)  # the same commit, other bytes
    setting.refused(f"{setting.weights}: has SHA-256")
    assert not setting.target.exists()


def test_a_file_that_was_added_later_is_refused(setting: Setting) -> None:
    (setting.tools / "helios").unlink()  # the real one
    (setting.scripts / "SHA256SUMS").write_text(setting.sums())
    for name in setting.read():
        (setting.target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(setting.hub / name, setting.target / name)
    (setting.target / "vae/more.json").write_text("{}")
    setting.refused("holds files that")


def test_sums_that_are_given_decide(setting: Setting) -> None:
    given = setting.scripts / "SHA256SUMS"
    given.write_text(setting.sums(setting.weights))
    setting.refused("holds files that")
    good = setting.sums()
    setting.damage(setting.hub)
    given.write_text(good)
    setting.refused(f"{setting.weights}: has SHA-256")
    assert not setting.target.exists()
    given.write_text(setting.sums())
    done = setting.run()
    assert done.returncode == 0, done.stderr
    assert (setting.target / "SHA256SUMS").read_text() == given.read_text()
    assert not setting.recorded.exists()


def test_what_is_no_checkpoint_is_neither_kept_nor_recorded(setting: Setting) -> None:
    (setting.tools / "helios").unlink()  # the real one
    (setting.hub / "model_index.json").unlink()
    setting.refused("model_index.json")
    assert not setting.target.exists()
    assert not setting.recorded.exists()


def test_a_download_that_fails_leaves_nothing(setting: Setting) -> None:
    setting.tool("hf", "#!/bin/sh\nexit 9\n")
    assert setting.run().returncode == 9
    assert not setting.target.parent.exists()


def test_a_folder_of_another_revision_is_not_taken_for_this_one(setting: Setting) -> None:
    setting.target.mkdir(parents=True)
    setting.recorded.write_text("")
    setting.refused("nothing was recorded of its download at main", REVISION="main")


@pytest.mark.parametrize("revision", ["", "refs/pr/1", "a b", "main;id", "../x"])
def test_odd_revisions_are_refused(setting: Setting, revision: str) -> None:
    setting.refused(f"REVISION '{revision}' is not allowed", REVISION=revision)


@pytest.mark.parametrize("revision", ["COMMIT", "main", "v1.0", COMMIT[:-1], f"{COMMIT}0", COMMIT.upper(), "g" * 40])
def test_production_takes_commits_only(setting: Setting, production: Manifests, revision: str) -> None:
    job = production.get("Job", "helios-weights")
    assert job is not None
    (container,) = job["spec"]["template"]["spec"]["containers"]
    environ = {one["name"]: one["value"] for one in container["env"] if "value" in one} | {
        "TARGET": str(setting.target)
    }
    assert environ["REVISION"] == "COMMIT"  # to be filled in, and refused until then
    setting.tool("hf", "#!/bin/sh\nexit 9\n")
    setting.refused("allowed: a commit, as 40 hexadecimal digits", **environ | {"REVISION": revision})
    assert setting.run(**environ | {"REVISION": COMMIT}).returncode == 9, "reaches the download"


def test_what_is_downloaded_is_what_the_engine_reads() -> None:
    script = re.findall(r"--include '([^']+)'", SCRIPT.read_text())
    assert {*script, "SHA256SUMS"} == set(FILES)
    ignored = (ROOT / "docker/weights.Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    assert {line.removeprefix("!Helios-Distilled/") for line in ignored[2:]} == set(FILES)


def test_the_hubs_owner_is_spelt_in_one_way() -> None:
    """Offline caches are found by it."""
    texts = [path for folder in ("docs", "k8s", "docker") for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts += [ROOT / "README.md", *(ROOT / "services").rglob("*.py"), *(ROOT / "helios_engine").rglob("*.py")]
    found = set()
    for path in texts:
        if path.suffix in (".md", ".py", ".yaml", ".sh", ".Dockerfile"):
            found |= set(re.findall(r"(?<![\w/.-])(\w+/helios-(?:distilled|base|mid))\b", path.read_text(), re.I))
    assert found == {"BestWishYSH/Helios-Distilled"}


def test_an_overlay_names_the_commit_and_brings_its_sums(scratch: Path) -> None:
    """As docs/kubernetes.md has it."""
    page = (ROOT / "docs/kubernetes.md").read_text()
    (block,) = (block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "COMMIT" in block)
    overlay = scratch / "weights"
    overlay.mkdir()
    up = "../" * len(overlay.resolve().parts[1:])
    resources = {"resources": [f"{up}{(K8S / 'overlays/production').relative_to('/')}"]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(resources) + block.replace("COMMIT", COMMIT))
    (overlay / "SHA256SUMS").write_text(f"{'5e' * 32}  model_index.json\n")
    built = Manifests(build(overlay))
    job = built.get("Job", "helios-weights")
    assert job is not None
    pod = job["spec"]["template"]["spec"]
    variables = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    assert (variables["REVISION"], variables["REQUIRE_COMMIT"]) == (COMMIT, "true")
    (name,) = (volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "scripts")
    (scripts,) = (one["data"] for one in built.of_kind("ConfigMap") if one["metadata"]["name"] == name)
    assert set(scripts) == {"fetch.sh", "SHA256SUMS"}
