"""The player, as a viewer has it: from nothing to moving pictures, steered, cut off and joined again."""

from pathlib import Path
from typing import Any

import pytest
from browser.conftest import Open, Player, Service
from faults.proxy import Mode

from helios.v1 import video_generation_pb2 as pb
from support.waiting import wait_until

VIEWS = [
    pytest.param({"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"}, id="desktop-dark"),
    pytest.param({"viewport": {"width": 360, "height": 740}, "color_scheme": "light"}, id="phone-light"),
]
CONTRAST = """() => {
  const light = (channel) => (channel /= 255) <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
  const shine = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const colour = (text) => text.match(/[0-9.]+/g).map(Number);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const found = colour(getComputedStyle(each).backgroundColor);
      if (found[3] !== 0) return found;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest('#cover, :disabled, [aria-disabled=true]')) continue;
    const style = getComputedStyle(element);
    const [a, b] = [shine(colour(style.color)), shine(behind(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(`${element.tagName} ${element.textContent.trim().slice(0, 40)}`);
  }
  return faint;
}"""
NAMELESS = """() => [...document.querySelectorAll('button, input, select, textarea, a[href], video, dialog')]
  .filter((element) => !(element.labels?.length || element.textContent.trim() || element.ariaLabel
    || element.getAttribute('aria-labelledby'))).map((element) => element.outerHTML)"""


def job_of(player: Player, service: Service) -> pb.Job:
    """The job that the page shows."""
    kept = player.page.evaluate("JSON.parse(sessionStorage.getItem('helios.session')).id")
    return service.quick.client.get(kept)


def whole(player: Player) -> bool:
    """Nothing is missing in what can be played."""
    return bool(player.page.evaluate("document.querySelector('#video').buffered.length === 1"))


@pytest.mark.parametrize("view", VIEWS)
def test_from_nothing_to_moving_pictures(service: Service, opened: Open, view: dict[str, Any]) -> None:
    player = opened(service.url, **view)
    player.see("document.activeElement.id === 'prompt'")
    player.start("a lake at night")
    player.see("document.querySelector('#first-frame').textContent.endsWith(' s')")
    player.see("document.querySelector('#state').textContent === 'Playing while it is made'")
    player.see("parseFloat(document.querySelector('#buffered').textContent) > 0")
    player.see("parseInt(document.querySelector('#fps').textContent) > 0")
    assert player.page.evaluate(NAMELESS) == []
    assert player.page.evaluate(CONTRAST) == []
    assert player.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than the screen"


def test_steering_is_shown_where_it_reaches_and_seen_there(service: Service, opened: Open) -> None:
    player = opened(service.url)
    player.start("a lake at night")
    player.page.fill("#prompt", "a storm")
    player.see("document.querySelector('#hint').textContent.includes('reaches chunk')")
    player.page.press("#prompt", "Enter")
    player.see("/reaches chunk [0-9]+/.test(document.querySelector('#prompts li:nth-child(2)').textContent)")
    (update,) = job_of(player, service).prompt_updates
    assert update.prompt == "a storm"
    player.see(
        f"document.querySelector('#prompts li:nth-child(2)').textContent.includes('on screen, from chunk "
        f"{update.chunk_index + 1} on')"
    )
    begins = update.chunk_index * 33 / 24
    assert player.page.evaluate("document.querySelector('#video').currentTime") >= begins - 0.1
    player.see("document.querySelector('#to-screen').textContent.endsWith(' s')")
    player.write(" ")
    player.see("document.querySelector('#hint').textContent === 'Write what should happen next.'")


def test_pause_go_on_stop_and_begin_again(service: Service, opened: Open) -> None:
    player = opened(service.url)
    player.start("a lake at night")
    player.page.click("#pause")
    player.see("document.querySelector('#pause').textContent === 'Go on'")
    assert job_of(player, service).paused
    player.page.press("#prompt", "k")  # a letter, while writing
    assert player.page.input_value("#prompt") == "k"
    assert job_of(player, service).paused
    player.page.press("#share", "k")
    player.see("document.querySelector('#state').textContent === 'Playing while it is made'")
    player.page.click("#stop")
    job = job_of(player, service)
    wait_until(lambda: service.quick.client.get(job.id).state == pb.JOB_STATE_SUCCEEDED)
    player.see("document.querySelector('#state').textContent === 'The video is complete'")
    assert player.page.get_attribute("#download", "aria-disabled") == "false"
    assert whole(player)
    player.start("a sea", length="5")
    assert job_of(player, service).params.prompt == "a sea"


def test_a_network_that_is_away_for_a_while(service: Service, opened: Open) -> None:
    player = opened(service.through_proxy)
    player.start("a lake at night")
    service.proxy.set(Mode.CUT)
    player.see("document.querySelector('#state').textContent === 'Connecting again'")
    assert "The connection was lost" in player.text("#notice")
    player.write("a storm")  # is kept until it can be said
    made = job_of(player, service).chunks_done
    player.see("document.querySelector('#buffered').textContent === '0.0 s'")
    service.proxy.set(Mode.PASS)
    player.see("document.querySelector('#notice').hidden")
    player.plays(beyond=(made + 1) * 33 / 24)
    assert whole(player)
    assert [update.prompt for update in job_of(player, service).prompt_updates] == ["a storm"]


def test_a_gateway_that_is_started_again(service: Service, opened: Open) -> None:
    player = opened(service.url)
    player.start("a lake at night")
    service.end_gateway()
    player.see("document.querySelector('#state').textContent === 'Connecting again'")
    service.start_gateway()
    player.see("document.querySelector('#notice').hidden")
    player.plays(beyond=(job_of(player, service).chunks_done + 1) * 33 / 24)
    assert whole(player)


def test_a_reload_goes_on_where_it_was(service: Service, opened: Open) -> None:
    player = opened(service.url)
    player.start("a lake at night")
    player.plays(beyond=1.5)
    job = job_of(player, service)
    player.page.reload()
    player.plays(beyond=1.3)
    assert job_of(player, service).id == job.id
    assert player.text("#prompts").count("a lake at night") == 1


def test_two_viewers_of_one_session(service: Service, opened: Open) -> None:
    first = opened(service.url)
    first.start("a lake at night")
    first.page.click("#share")
    link = first.page.input_value("#watch-link")
    first.page.keyboard.press("Escape")
    second = opened(link)
    second.plays()
    second.write("a storm")
    second.see("/chunk [0-9]+/.test(document.querySelector('#prompts li:nth-child(2)').textContent)")
    assert [update.prompt for update in job_of(first, service).prompt_updates] == ["a storm"]
    first.plays(beyond=2)
    second.page.click("#stop")
    first.see("document.querySelector('#state').textContent === 'The video is complete'")
    second.see("document.querySelector('#state').textContent === 'The video is complete'")


def test_a_shared_link_makes_the_video_again(service: Service, opened: Open) -> None:
    first = opened(service.url)
    first.start("a lake at night")
    first.write("a storm")
    first.see("document.querySelector('#prompts li:nth-child(2)').textContent.includes('on screen')")
    first.page.click("#stop")
    first.see("document.querySelector('#state').textContent === 'The video is complete'")
    one = job_of(first, service) if first.page.evaluate("!!sessionStorage.getItem('helios.session')") else None
    first.page.click("#share")
    link = first.page.input_value("#replay-link")
    second = opened(link)
    second.see("document.querySelector('#hint').textContent.includes('makes the video of this link again')")
    second.page.press("#prompt", "Enter")
    second.plays()
    job = job_of(second, service)
    assert [entry.prompt for entry in job.params.prompt_schedule] == ["a storm"]
    assert one is None or job.params.seed == one.params.seed
    assert second.text("#prompts").count("a storm") == 1


def test_a_picture_to_start_from(service: Service, opened: Open, tmp_path: Path) -> None:
    player = opened(service.url)
    png = tmp_path / "lake.png"
    png.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    player.page.set_input_files("#file", png)
    player.see("document.querySelector('#dropped-name').textContent === 'lake.png'")
    player.start("a lake at night")
    assert job_of(player, service).params.image_id
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    other = opened(service.url)
    other.page.set_input_files("#file", text)
    other.see("document.querySelector('#notice').textContent.includes('neither a picture nor a clip')")
