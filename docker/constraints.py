"""Prints pyproject.toml's dependencies as pip constraints, for installing some of them without the others."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
for requirement in [*project["dependencies"], *project["optional-dependencies"]["s3"]]:
    if "[" not in requirement:  # a constraint must not name extras
        print(requirement)
