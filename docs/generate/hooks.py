"""What MkDocs calls while it builds the site."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from docs.generate import commands, http, plans, protocol, settings

PAGES = {
    "reference/settings.md": settings,
    "reference/commands.md": commands,
    "reference/plans.md": plans,
    "reference/grpc.md": protocol,
    "reference/http.md": http,
}
DOCS = Path(__file__).parents[1]
CLUSTER = re.compile(r"^```sh cluster$", re.MULTILINE)
"""How pages mark commands that need a cluster; tests read it. MkDocs knows no language of two words."""
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are written from the code."""
    for name, module in PAGES.items():
        files.append(File.generated(config, name, content=module.page()))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """A link to a file of the repository becomes the file's name: the site holds the documentation only.

    Commands that need a cluster get a title that says so.
    """
    folder = (DOCS / page.file.src_uri).parent

    def named(link: "re.Match[str]") -> str:
        text, target, _ = link.groups()
        if re.match(r"[a-z]+:", target):
            return link[0]
        path = (folder / target).resolve()
        if path.is_relative_to(DOCS):
            return link[0]
        name = path.relative_to(DOCS.parent)
        if not path.exists():
            raise ValueError(f"{page.file.src_uri}: {target} does not exist")
        return f"`{name}`" if text.strip("`") in target else f"{text} (`{name}`)"

    return LINK.sub(named, CLUSTER.sub('```sh title="needs a cluster"', markdown))
