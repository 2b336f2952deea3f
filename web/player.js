// The player: one form that starts a video and then steers it.

import { Figures } from "./figures.js";
import { HeliosError, HeliosSession, VideoFeed } from "./helios.js";
import { fromLink, replayLink, replayParams, watchLink } from "./links.js";
import { Settings } from "./settings.js";
import { Timeline } from "./timeline.js";
import { clock, inWords, waiting } from "./words.js";

const KEPT = "helios.session"; // where a reload finds what ran
const at = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const { video, stage } = at;
const timeline = new Timeline(at.cells, at.prompts);
const settings = new Settings(at, {
  onFile: (file) => file && !running && say(`Starts from “${file.name}”.`, true),
  onRefused: (words) => say(words),
});

let session = null;
let feed = null;
let figures = null;
let running = false; // whether a session is there to be steered
let replaying = null; // what a link asks for
let spoken = ""; // what the status line says

/** Begins a session, or joins one. */
async function begin(how) {
  leave();
  running = true;
  replaced("waiting", "Waiting for the service");
  at.settings.disabled = true;
  timeline.clear();
  try {
    const params = how.attach ? null : replaying ? replayParams(replaying, settings.model.frames_per_chunk) : await settings.params(how.prompt);
    if (params) shape(params.width, params.height);
    session = new HeliosSession({ token: settings.token });
    feed = VideoFeed.supported ? new VideoFeed(video, session) : new Streamed(video, session);
    figures = new Figures(video, feed, session);
    const mine = session;
    const listen = (type, handler) => mine.addEventListener(type, (event) => mine === session && handler(event.detail));
    listen("job", followed);
    listen("state", connection);
    listen("failed", failed);
    if (!how.attach) history.replaceState(null, "", location.pathname); // a reload goes on with this, not with the link
    const job = how.attach ? await session.attach(how.attach, how.chunk ?? 0) : await session.start({ params });
    keep(job.id);
    shape(job.params.width, job.params.height);
    timeline.add(job.params.prompt, 0);
    for (const each of job.params.prompt_schedule ?? []) timeline.add(each.prompt, each.chunk_index ?? 0);
    followed(job);
    steering();
    video.play().catch(() => {}); // a page that may not: the viewer's click will
  } catch (error) {
    if (!(error instanceof HeliosError)) throw error;
    if (session?.state !== "failed") failed(error);
  }
}

async function steer(text) {
  const entry = timeline.add(text);
  const reached = figures.prompted();
  at.prompt.value = "";
  try {
    const chunk = await session.prompt(text);
    entry.reaches(chunk);
    reached(chunk);
    hint(`“${text}” reaches chunk ${chunk + 1}.`);
  } catch (error) {
    entry.refused(inWords(error));
    say(inWords(error));
    at.prompt.value ||= text;
  }
}

/** What a change of the job means to the page. */
function followed(job) {
  for (const each of job.prompt_updates ?? []) {
    if (!timeline.has(each.prompt, each.chunk_index ?? 0)) timeline.add(each.prompt, each.chunk_index ?? 0);
  }
  at.pause.textContent = job.paused ? "Go on" : "Pause";
  const over = job.end_time !== undefined;
  at.pause.disabled = at.stop.disabled = over || job.chunks_total > 0 && session.nextChunk >= job.chunks_total;
  at.share.disabled = false;
  at.full.disabled = false;
  if (over) ended(job);
  else status();
}

function ended(job) {
  const ready = job.state === "JOB_STATE_SUCCEEDED" && Number(job.video_bytes) > 0;
  at.download.setAttribute("aria-disabled", String(!ready));
  at.download.tabIndex = ready ? 0 : -1;
  if (ready) {
    at.download.href = `/v1/videos/${job.id}/content`;
    at.download.setAttribute("download", `helios-${job.id.slice(0, 8)}.mp4`);
  }
  finished();
}

/** No session is there any more; the form starts the next. */
function finished() {
  running = false;
  at.settings.disabled = false;
  at.pause.disabled = at.stop.disabled = true;
  at["prompt-label"].textContent = "What should the next video show?";
  at.go.textContent = "Start";
  status();
}

function steering() {
  at.go.disabled = false;
  at.go.textContent = "Steer";
  at["prompt-label"].textContent = "What should happen next?";
  at.prompt.value = "";
  at.prompt.placeholder = "A storm comes up";
  hint("Enter sends. The timeline shows which chunk it reaches.");
}

function connection(state) {
  if (state === "lost") say("The connection was lost. Trying again; the video goes on from where it was.", true);
  if (state === "open") quiet();
  status();
}

function failed(error) {
  if (stage.dataset.state !== "playing") replaced("failed", inWords(error));
  say(inWords(error));
  if (error.code === "unauthenticated") at.access.open = true;
  forget();
  at.go.disabled = false;
  finished();
  at.state.dataset.state = "failed";
}

function leave() {
  quiet();
  session?.close();
  feed?.close();
  figures?.close();
  session = feed = figures = null;
  video.removeAttribute("src");
  video.load();
  at.download.setAttribute("aria-disabled", "true");
  at.download.removeAttribute("href");
  at.share.disabled = true;
}

/** The stage takes the video's shape, so that nothing moves when its first picture comes. */
function shape(width, height) {
  stage.style.aspectRatio = `${width} / ${height}`;
}

/** The picture's cover. */
function replaced(state, text) {
  stage.dataset.state = state;
  at["cover-text"].textContent = text;
}

/** The line that a screen reader hears. */
function status() {
  const job = session?.job;
  const live = running && session?.state === "open";
  at.state.dataset.state = live ? "live" : "idle";
  let text = "Ready";
  if (running && session?.state === "lost") text = "Connecting again";
  else if (running && !job) text = "Starting";
  else if (running && job.state === "JOB_STATE_QUEUED" && job.chunks_done === 0) text = "Waiting for its turn";
  else if (running && job.paused) text = "Paused";
  else if (running && figures?.started) text = "Playing while it is made";
  else if (running) text = "Making the first pictures";
  else if (job?.state === "JOB_STATE_SUCCEEDED") text = video.ended ? "The video is complete" : "Made; playing to its end";
  if (text === spoken) return;
  spoken = text;
  at.state.textContent = text;
  if (stage.dataset.state === "waiting") at["cover-text"].textContent = text;
}

function say(words, calm = false) {
  at.notice.textContent = words;
  at.notice.classList.toggle("calm", calm);
  at.notice.hidden = false;
}

function quiet() {
  at.notice.hidden = true;
}

function hint(words) {
  at.hint.textContent = words;
}

/** A reload goes on with the session, at the chunk that was on the screen. */
function keep(id) {
  const chunk = Math.max(0, feed?.chunkAt(video.currentTime) ?? 0);
  const text = JSON.stringify({ id, chunk });
  if (sessionStorage.getItem(KEPT) !== text) sessionStorage.setItem(KEPT, text);
}

function forget() {
  sessionStorage.removeItem(KEPT);
}

/** Ten times a second: what follows the clock and not an event. */
function tick() {
  if (!session?.job) return;
  const { job } = session;
  const now = video.readyState >= 2 ? feed.chunkAt(video.currentTime) : -1;
  const of = job.chunks_total > 0 ? ` / ${clock(job.chunks_total * settings.chunkSeconds)}` : "";
  const text = clock(video.currentTime) + of;
  if (at.clock.textContent !== text) at.clock.textContent = text;
  const done = Math.max(session.nextChunk, job.chunks_done);
  timeline.draw({
    now: video.ended ? done : now,
    done,
    total: job.chunks_total,
    making: running && !job.paused,
    seconds: settings.chunkSeconds,
    soon: (chunk) => untilSeen(chunk, done),
  });
  figures.show(at);
  if (figures.started) stage.dataset.state = figures.stalled && running ? "stalled" : "playing";
  if (video.ended && !running) forget();
  else if (now >= 0) keep(job.id);
  status();
}

/** Seconds until a chunk is on the screen: until it is made, or until the picture has come so far. */
function untilSeen(chunk, done) {
  const made = figures.chunkSeconds === null ? 0 : Math.max(0, chunk + 1 - done) * figures.chunkSeconds;
  return Math.max(made, chunk * settings.chunkSeconds - video.currentTime);
}

/** Where there is no Media Source: the same video as HLS, which such browsers play themselves. */
class Streamed {
  constructor(element, of) {
    this.video = element;
    this.session = of;
    of.addEventListener("job", () => {
      if (element.src) return;
      const query = settings.token ? `?${new URLSearchParams({ token: settings.token })}` : "";
      element.src = `/v1/videos/${of.jobId}/hls/index.m3u8${query}`;
      element.play().catch(() => {});
    });
    element.addEventListener("timeupdate", () => of.played(this.chunkAt(element.currentTime)));
  }

  get bufferedSeconds() {
    const { buffered, currentTime } = this.video;
    return buffered.length ? Math.max(0, buffered.end(buffered.length - 1) - currentTime) : 0;
  }

  chunkAt(time) {
    return Math.floor(time / settings.chunkSeconds);
  }

  close() {}
}

at.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at.prompt.value.trim();
  if (!text) {
    hint(running ? "Write what should happen next." : "Write what the video should show.");
    at.prompt.focus();
  } else if (running && session?.job) {
    steer(text);
  } else if (!running) {
    at.go.disabled = true;
    begin({ prompt: text });
    replaying = null;
  }
});

at.prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  at.composer.requestSubmit();
});

at.prompt.addEventListener("input", () => {
  if (replaying) {
    replaying = null;
    hint("The link's other prompts are left out: this is a video of its own.");
  }
  if (!running || !session?.job || !at.prompt.value.trim()) return;
  const next = Math.max(session.nextChunk, session.job.chunks_done) + 1;
  hint(`Enter sends. It reaches chunk ${next + 1} or a later one, in about ${waiting(untilSeen(next, next - 1))}.`);
});

at.pause.addEventListener("click", () => {
  if (session.job.paused) {
    session.resume();
    video.play().catch(() => {});
  } else {
    session.pause();
    video.pause();
  }
});

at.stop.addEventListener("click", () => {
  session.stop();
  at.stop.disabled = true;
  video.play().catch(() => {});
});

stage.addEventListener("click", () => video.paused && running && !session?.job?.paused && video.play().catch(() => {}));

at.full.addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : stage.requestFullscreen()));

at.share.addEventListener("click", () => {
  at["watch-part"].hidden = !running;
  at["watch-link"].value = watchLink(session.jobId);
  at["replay-link"].value = replayLink(session.job, session.job.chunks_total || Math.max(1, session.nextChunk));
  at["share-dialog"].showModal();
});

at["share-dialog"].addEventListener("click", async (event) => {
  const field = event.target.dataset.copy;
  if (!field) return;
  at[field].select();
  await navigator.clipboard?.writeText(at[field].value).catch(() => document.execCommand("copy"));
  event.target.textContent = "Copied";
});

at.download.addEventListener("click", async (event) => {
  if (at.download.getAttribute("aria-disabled") === "true") event.preventDefault();
  else if (settings.token) {
    // a link cannot carry a token without showing it in its address
    event.preventDefault();
    const response = await fetch(at.download.href, { headers: settings.headers });
    if (!response.ok) {
      say("The video cannot be downloaded with this access token.");
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = at.download.download;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") at.prompt.focus();
  else if (event.key === "k" && !at.pause.disabled) at.pause.click();
  else if (event.key === "f" && !at.full.disabled) at.full.click();
  else return;
  event.preventDefault();
});

async function opened() {
  const link = fromLink(location.hash);
  try {
    await settings.load();
    at.model.textContent = settings.name;
  } catch (error) {
    say(inWords(error));
    if (error.code === "unauthenticated") at.access.open = true;
  }
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  if (link.watch) begin({ attach: link.watch, chunk: kept?.id === link.watch ? kept.chunk : 0 });
  else if (link.replay) {
    replaying = link.replay;
    at.prompt.value = link.replay.prompt;
    settings.fill(link.replay);
    hint(`Start makes the video of this link again: ${link.replay.chunks} chunks, ${(link.replay.prompts ?? []).length + 1} prompts.`);
  } else if (kept) begin({ attach: kept.id, chunk: kept.chunk });
  else at.prompt.focus();
}

at.token.addEventListener("change", () => settings.load().then(() => {
  at.model.textContent = settings.name;
  quiet();
}, (error) => say(inWords(error))));
addEventListener("hashchange", () => location.reload());
setInterval(tick, 100);
opened();
