"""The documentation site builds without a complaint and without a network, and fetches nothing when it is read."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from helios.v1 import video_generation_pb2 as pb

ROOT = Path(__file__).parents[2]
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Fetches(HTMLParser):
    """What a browser loads with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        url = dict(attrs).get(FETCHED.get(tag, ""))
        if url and not url.startswith("data:"):
            self.urls.append(url)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly: a link or an anchor that leads nowhere fails. As without a network: no proxy answers."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = {f"{scheme}_proxy": "http://127.0.0.1:1" for scheme in ("http", "https")}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "NO_MKDOCS_2_WARNING": "1", **nowhere},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        found = Fetches()
        found.feed(page.read_text())
        assert found.urls
        for url in found.urls:
            assert "//" not in url, (page.name, url)
            if page.name != "404.html":  # whose links are from the root: it is served at any depth
                assert (page.parent / url.partition("?")[0]).exists(), (page.name, url)
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text()), style


def test_every_code_block_of_a_page_is_one_on_the_site(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert "```" not in page.read_text(), page.name
    kubernetes = (site / "kubernetes.html").read_text()
    assert kubernetes.count("needs a cluster") == (ROOT / "docs/kubernetes.md").read_text().count("```sh cluster")


def test_generated_pages_hold_every_setting_command_and_message(site: Path) -> None:
    settings = (site / "reference/settings.html").read_text()
    for name in ("state_dir", "gateway.max_concurrent_rpcs", "denoiser.autoscaling.max_replicas"):
        assert f'id="{name}"' in settings
    commands = (site / "reference/commands.html").read_text()
    for name in ("helios generate", "helios jobs requeue", "--prompt-at", "HELIOS_SERVER"):
        assert name in commands
    calls = (site / "reference/grpc.html").read_text()
    for name in [
        *pb.DESCRIPTOR.services_by_name["VideoGeneration"].methods_by_name,
        *pb.DESCRIPTOR.message_types_by_name,
    ]:
        assert f'id="{name}"' in calls
    calls = (site / "reference/http.html").read_text()
    for name in ("POST /v1/videos/extensions", "Last-Event-ID", "input_reference"):
        assert name in calls
    for page, name in (("client", "HeliosClient.stream"), ("engine", "HeliosPipeline.generate")):
        assert name in (site / f"reference/{page}.html").read_text()
