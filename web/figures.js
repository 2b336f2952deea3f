// What a viewer would measure: first frame, buffer, prompt to screen, frames a second, stalls.

import { seconds, HeliosSession } from "./helios.js";
import { waiting } from "./words.js";

const WINDOW_S = 2;
const CHUNKS = 6; // of which the making rate is an average

/** Follows one session; `show` writes the figures into elements by their ids. */
export class Figures {
  #video;
  #feed;
  #began = performance.now();
  #first = null;
  #shown = []; // times of frames on the screen
  #stalls = 0;
  #stalled = false;
  #asked = []; // { at, chunk } of prompts that are not on the screen yet
  #delay = null;
  #made = []; // [ready, frames] of the last chunks
  #listeners = new AbortController();

  constructor(video, feed, session) {
    this.#video = video;
    this.#feed = feed;
    const { signal } = this.#listeners;
    video.addEventListener("waiting", () => this.#waits(), { signal });
    video.addEventListener("playing", () => (this.#stalled = false), { signal });
    if (session instanceof HeliosSession) session.addEventListener("chunk", (event) => this.#chunk(event.detail), { signal });
    this.#watch();
  }

  get stalled() {
    return this.#stalled;
  }

  get started() {
    return this.#first !== null;
  }

  /** Seconds in which a chunk is made, or null. */
  get chunkSeconds() {
    if (this.#made.length < 2) return null;
    return (this.#made.at(-1)[0] - this.#made[0][0]) / (this.#made.length - 1);
  }

  /** A prompt was sent; returns what its answer is told to. */
  prompted() {
    const entry = { at: performance.now(), chunk: null };
    this.#asked.push(entry);
    return (chunk) => {
      entry.chunk = chunk;
    };
  }

  show(ids) {
    const put = (id, text) => {
      if (ids[id].textContent !== text) ids[id].textContent = text;
    };
    const now = performance.now();
    this.#shown = this.#shown.filter((at) => now - at < WINDOW_S * 1000);
    put("first-frame", this.#first === null ? "–" : waiting(this.#first / 1000));
    put("buffered", this.#first === null ? "–" : `${this.#feed.bufferedSeconds.toFixed(1)} s`);
    put("to-screen", this.#delay === null ? "–" : waiting(this.#delay / 1000));
    put("fps", this.#first === null ? "–" : `${(this.#shown.length / WINDOW_S).toFixed(0)} FPS`);
    put("stalls", String(this.#stalls));
    const chunk = this.chunkSeconds;
    put("making", chunk ? `${(this.#made.at(-1)[1] / chunk).toFixed(1)} FPS` : "–");
  }

  close() {
    this.#listeners.abort();
  }

  #chunk(chunk) {
    this.#made.push([Date.parse(chunk.ready_time) / 1000, chunk.num_frames, seconds(chunk.duration)]);
    if (this.#made.length > CHUNKS) this.#made.shift();
  }

  #waits() {
    if (this.#first === null || this.#video.ended || this.#video.seeking) return;
    this.#stalls += 1;
    this.#stalled = true;
  }

  #watch() {
    if (!this.#video.requestVideoFrameCallback) {
      this.#video.addEventListener("playing", () => (this.#first ??= performance.now() - this.#began), { once: true });
      return;
    }
    const frame = (now, { mediaTime }) => {
      if (this.#listeners.signal.aborted) return;
      this.#first ??= now - this.#began;
      this.#stalled = false;
      this.#shown.push(now);
      const chunk = this.#feed.chunkAt(mediaTime);
      this.#asked = this.#asked.filter((entry) => {
        if (entry.chunk === null || entry.chunk > chunk) return true;
        this.#delay = now - entry.at;
        return false;
      });
      this.#video.requestVideoFrameCallback(frame);
    };
    this.#video.requestVideoFrameCallback(frame);
  }
}
