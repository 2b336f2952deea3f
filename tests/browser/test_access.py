"""The player where keys are asked for: what it says to a viewer without a token, and with one of each kind."""

import time
from typing import Any

import httpx
import jwt
from browser.conftest import Open, Player, Service

from helios_services.gateway.guard.tokens import AUDIENCE
from support.waiting import wait_until

Guarded = tuple[Service, dict[str, str]]


def token(guarded: Guarded, key: str, **asked: Any) -> str:
    """Made with a key, as a backend does it."""
    service, keys = guarded
    headers = {"Authorization": f"Bearer {keys[key]}"}
    answer = httpx.post(f"{service.url}/v1/realtime/tokens", json=asked, headers=headers)
    return str(answer.json()["token"])


def present(player: Player, given: str) -> None:
    """Puts a token in."""
    if not player.page.evaluate("document.querySelector('#access').open"):
        player.page.click("#access summary")
    player.page.fill("#token", given)
    player.page.press("#token", "Tab")


def test_what_a_viewer_is_told(guarded: Guarded, opened: Open) -> None:
    service, keys = guarded
    player = opened(service.url)
    asks = "document.querySelector('#notice').textContent.includes('asks for an access token')"
    player.see(asks)
    player.see("document.querySelector('#access').open")
    present(player, keys["web"] + "x")  # a wrong key
    player.see(asks)
    player.write("a lake at night")
    player.see("document.querySelector('#state').dataset.state === 'failed'")
    assert not player.page.is_disabled("#go")
    claims = {"aud": AUDIENCE, "sub": "web", "iat": 1, "exp": int(time.time()) - 60, "scopes": ["submit", "read"]}
    present(player, jwt.encode(claims | {"models": [], "job": "", "starts": True}, "s" * 40, "HS256"))
    player.see("document.querySelector('#notice').textContent.includes('has expired')")
    present(player, token(guarded, "web"))
    player.see("document.querySelector('#notice').hidden")
    player.start("a lake at night")
    assert keys["web"].split(".")[1] not in player.page.content()
    assert "token" not in player.page.url


def test_a_quota_that_is_used_up(guarded: Guarded, opened: Open) -> None:
    player = opened(guarded[0].url)
    present(player, token(guarded, "narrow"))
    player.see("document.querySelector('#notice').hidden")
    player.start("a lake at night", length="5")
    player.see("document.querySelector('#go').textContent === 'Start'")

    def refused() -> bool:
        if player.page.is_enabled("#go") and player.text("#go") == "Start":
            player.write("a sea")
        return "no room for this now" in player.text("#notice")

    wait_until(refused, 60)
    assert "Try again in" in player.text("#notice")


def test_a_token_for_one_session_survives_a_reload(guarded: Guarded, opened: Open) -> None:
    player = opened(guarded[0].url)
    present(player, token(guarded, "web", one_session=True))
    player.see("document.querySelector('#notice').hidden")
    player.start("a lake at night")
    player.page.reload()
    player.plays()
