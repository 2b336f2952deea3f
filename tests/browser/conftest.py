"""A real Chromium on the player's pages, a real gateway, stand-in workers with moving pictures."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.proxy import FaultProxy
from faults.quick_service import QuickService
from playwright.sync_api import Browser, BrowserContext, Error, Page, sync_playwright

from helios_services.config import JobsConfig
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import Quotas, new_key
from helios_services.jobs.embedded import EmbeddedRedis, free_port
from support.processes import GatewayProcess
from support.waiting import wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHUNK_S = 0.3
"""Pictures are made well ahead of time."""
SCOPES = frozenset({Scope.SUBMIT, Scope.READ, Scope.CANCEL})


class Service:
    """A quick service whose gateway can be started again at its ports, and a proxy before it."""

    def __init__(self, folder: Path, redis_url: str, **gateway: Any) -> None:
        ports = {"port": free_port(), "http_port": free_port()}
        jobs = JobsConfig(lease_s=600.0, heartbeat_s=1.0, session_grace_s=120.0)
        self.quick = QuickService(folder, redis_url, jobs=jobs, gateway=ports | gateway)
        self.quick.worker(chunk_s=CHUNK_S, moving=True, config=self.quick.with_slots(8))
        self.proxy = FaultProxy(ports["http_port"])
        self.url = self.quick.gateway.http

    @property
    def through_proxy(self) -> str:
        """The player, by way of the proxy."""
        return f"http://127.0.0.1:{self.proxy.port}"

    def end_gateway(self) -> None:
        """In order, as a rollout does it."""
        self.quick.gateway.close()

    def start_gateway(self) -> None:
        """At the same ports."""
        self.quick.gateway = GatewayProcess(self.quick.config, self.quick.folder / "gateway.log")

    def close(self) -> None:
        """Ends all of it."""
        self.proxy.close()
        self.quick.close()


@pytest.fixture(scope="module")  # as long as Playwright is there, its event loop runs in this thread: no other test can
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    redis = EmbeddedRedis.start(tmp_path_factory.mktemp("redis"))
    yield redis.url
    redis.stop()


@pytest.fixture(scope="module")
def service(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"), redis_url)
    yield service
    service.close()


@pytest.fixture(scope="module")
def guarded(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, dict[str, str]]]:
    """A service that asks for keys, and its keys by name: `narrow` may submit once a minute."""
    folder = tmp_path_factory.mktemp("guarded")
    made = {
        "web": new_key("web", "a", SCOPES),
        "narrow": new_key("narrow", "a", SCOPES, quotas=Quotas(submits_per_minute=1)),
    }
    (folder / "keys.yaml").write_text(
        yaml.safe_dump({"keys": [entry.model_dump(mode="json") for _, entry in made.values()]})
    )
    (folder / "token-secrets").write_text("s" * 40)
    files = {"api_keys_file": str(folder / "keys.yaml"), "token_secrets_file": str(folder / "token-secrets")}
    service = Service(folder, redis_url, **files)
    yield service, {name: key for name, (key, _) in made.items()}
    service.close()


class Player:
    """A page with the player. It asks nobody but its own origin, and breaks none of its own rules."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.url, self.wrong = url.rstrip("/").partition("/#")[0], list[str]()
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: self._said(said.text))
        self.page.goto(url)

    def see(self, condition: str) -> None:
        """Waits until a JavaScript expression is true. (Playwright's own way needs `eval`, which the pages forbid.)"""
        try:
            wait_until(lambda: self.page.evaluate(condition), 60)
        except TimeoutError:
            seen = self.page.inner_text("body")
            raise AssertionError(f"{condition} did not come true; the page says:\n{seen}\n{self.wrong}") from None

    def write(self, prompt: str) -> None:
        """Starts, or steers."""
        self.page.fill("#prompt", prompt)
        self.page.press("#prompt", "Enter")

    def start(self, prompt: str, length: str = "open") -> None:
        """A small video, and its first moments."""
        self.see("document.querySelector('#size').options.length > 0")
        self.page.select_option("#length", length)
        self.page.evaluate(
            """() => { const size = document.querySelector('#size');
                       size.add(new Option('small', '128x64')); size.value = '128x64'; }"""
        )
        self.write(prompt)
        self.plays()

    def plays(self, beyond: float = 0.2) -> None:
        """Waits until the picture moves: time goes on, and pixels change."""
        self.see(f"document.querySelector('#video').currentTime > {beyond}")
        before = self.pixels()
        wait_until(lambda: self.pixels() != before, 60)

    def pixels(self) -> list[int]:
        """The picture's pixels, at 16 x 8."""
        return list(
            self.page.evaluate(
                """() => { const canvas = new OffscreenCanvas(16, 8), context = canvas.getContext('2d');
                           context.drawImage(document.querySelector('#video'), 0, 0, 16, 8);
                           return [...context.getImageData(0, 0, 16, 8).data]; }"""
            )
        )

    def text(self, selector: str) -> str:
        """What stands there."""
        return self.page.inner_text(selector)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url, self.url.replace("http", "ws"), "blob:", "data:")):
            self.wrong.append(f"asked {url}")

    def _said(self, text: str) -> None:
        if "Content Security Policy" in text or "violates" in text:
            self.wrong.append(text)


Open = Callable[..., Player]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Opens the player; the context of each page is its own browser. Options: of the context."""
    contexts: list[BrowserContext] = []
    players: list[Player] = []

    def opened(url: str, **options: Any) -> Player:
        contexts.append(browser.new_context(**options))
        players.append(Player(contexts[-1], url))
        return players[-1]

    yield opened
    for player in players:
        try:
            player.page.evaluate("document.querySelector('#stop').disabled || document.querySelector('#stop').click()")
        except Error:  # the test has closed it
            continue
    for context in contexts:
        context.close()
    assert [wrong for player in players for wrong in player.wrong] == []
