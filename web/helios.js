// A live Helios session in a page: the socket, and the video that comes through it.
//
//   import { HeliosSession, VideoFeed } from "./helios.js";
//   const session = new HeliosSession({ token });
//   const feed = new VideoFeed(document.querySelector("video"), session);
//   await session.start({ params: { prompt: "a lake at night", open_ended: true } });
//   const chunk = await session.prompt("a storm comes up");
//
// Types are in helios.d.ts, messages and their fields in docs/realtime.md. No dependencies.

const PROTOCOL = "helios.realtime.v1";
const TOKEN_PREFIX = "helios.token.";
const HEADER_BYTES = 8;
const INIT = 1;
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 4000;
const SILENCE_MS = 30000; // the service says "alive" every 10 s
const PASSING = new Set(["unavailable", "internal"]);

/** Why the service refused something; `code`, `fields`, `quota` and `retryAfterSeconds` as in its error. */
export class HeliosError extends Error {
  constructor(error) {
    super(error.message);
    this.name = "HeliosError";
    this.code = error.code ?? "";
    this.fields = error.fields ?? [];
    this.quota = error.quota ?? "";
    this.reason = error.reason ?? "";
    this.retryAfterSeconds = error.retry_after_s ?? null;
  }
}

/** Where the socket is, for a page that the service itself serves. */
export function defaultUrl() {
  const url = new URL("/v1/realtime/video", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  return url.href;
}

/**
 * One session, over as many sockets as it takes: one that drops is replaced, at the first chunk that is missing.
 *
 * Events (CustomEvent, with `detail`): "job", "chunk" (what is known of one), "segment" ({ init, index, data }),
 * "state" ("connecting", "open", "lost", "ended", "failed"), "failed" (a HeliosError: nothing more will come).
 */
export class HeliosSession extends EventTarget {
  #url;
  #token;
  #patienceMs;
  #socket = null;
  #state = "new";
  #first = null; // the message that begins a connection
  #opened = null; // { resolve, reject } of start or attach
  #sent = 0; // messages of this connection
  #prompts = []; // { text, options, message, resolve, reject }: those without an answer
  #known = 0; // prompt updates of the job when the last prompt was answered
  #parts = []; // of the segment that is arriving
  #next = 0; // the first chunk that is missing
  #initDone = false;
  #played = null;
  #wish = null; // pause, resume or stop, said while there was no socket
  #lastError = null; // why the job has failed
  #failures = 0;
  #lostAt = 0;
  #retry = 0;
  #silence = 0;

  constructor({ url = defaultUrl(), token = "", patienceSeconds = 120 } = {}) {
    super();
    this.#url = url;
    this.#token = token;
    this.#patienceMs = patienceSeconds * 1000;
    this.job = null;
    this.onOffline = () => this.#lost();
    this.onOnline = () => this.#state === "lost" && this.#connect();
    globalThis.addEventListener?.("offline", this.onOffline);
    globalThis.addEventListener?.("online", this.onOnline);
  }

  get state() {
    return this.#state;
  }

  get jobId() {
    return this.job?.id ?? "";
  }

  /** Chunks that have arrived, from the first that was asked for on. */
  get nextChunk() {
    return this.#next;
  }

  /** Starts a session. request: the fields of SubmitJobRequest. Resolves to the job; rejects with a HeliosError. */
  start(request) {
    // a start that is repeated after a lost answer must not make a second job
    const key = request.idempotency_key || crypto.randomUUID();
    return this.#begin({ type: "start", ...request, idempotency_key: key }, 0);
  }

  /** Joins the session of a job, from a chunk on. */
  attach(jobId, fromChunk = 0) {
    return this.#begin({ type: "attach", job_id: jobId, from_chunk: fromChunk }, fromChunk);
  }

  /** A new prompt. Resolves to the chunk at which it takes over; rejects with a HeliosError. */
  prompt(text, { chunkIndex = 0, interpolationChunks } = {}) {
    const options = { chunk_index: chunkIndex };
    if (interpolationChunks !== undefined) options.interpolation_chunks = interpolationChunks;
    return new Promise((resolve, reject) => {
      const entry = { text, options, message: -1, resolve, reject };
      this.#prompts.push(entry);
      if (this.#state === "open") this.#sendPrompt(entry);
    });
  }

  /** Stops making video after the chunk in progress, until `resume`. */
  pause() {
    this.#say({ type: "pause" });
  }

  resume() {
    this.#say({ type: "resume" });
  }

  /** Ends the video after the chunk in progress. */
  stop() {
    this.#say({ type: "stop" });
  }

  /** The viewer has seen so many chunks: the session is made and sent a few ahead of that, not more. */
  played(chunks) {
    if (this.#played !== null && chunks <= this.#played) return;
    this.#played = chunks;
    this.#say({ type: "played", chunks });
  }

  /** Leaves. The session goes on for the service's grace; `stop` ends it. */
  close() {
    this.#end("ended");
  }

  #begin(message, fromChunk) {
    if (this.#state !== "new") return Promise.reject(new Error("a session is started or attached once"));
    this.#first = message;
    this.#next = fromChunk;
    return new Promise((resolve, reject) => {
      this.#opened = { resolve, reject };
      this.#connect();
    });
  }

  #connect() {
    clearTimeout(this.#retry);
    this.#become("connecting");
    const protocols = this.#token ? [PROTOCOL, TOKEN_PREFIX + this.#token] : [PROTOCOL];
    let socket;
    try {
      socket = new WebSocket(this.#url, protocols);
    } catch (error) {
      this.#fail(new HeliosError({ message: String(error.message ?? error), code: "invalid_argument" }));
      return;
    }
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    const mine = (handler) => (event) => this.#socket === socket && handler(event);
    socket.onopen = mine(() => this.#greet());
    socket.onmessage = mine((event) => this.#hear(event.data));
    socket.onclose = mine(() => this.#lost());
    this.#listen();
  }

  #greet() {
    this.#sent = 0;
    this.#parts = [];
    this.#say(this.#first, true);
    this.#say({ type: "played", chunks: this.#played ?? this.#next }, true);
  }

  #hear(data) {
    this.#listen();
    if (typeof data !== "string") {
      this.#bytes(new Uint8Array(data));
      return;
    }
    const message = JSON.parse(data);
    switch (message.type) {
      case "job":
        this.#jobIs(message.job);
        break;
      case "chunk":
        this.#emit("chunk", message.chunk);
        break;
      case "prompt":
        this.#known += 1;
        this.#answered(message.message, (entry) => entry.resolve(message.chunk_index));
        break;
      case "refused":
        this.#answered(message.message, (entry) => entry.reject(new HeliosError(message.error)));
        break;
      case "error":
        this.#refused(new HeliosError(message.error));
        break;
      default: // "alive", and what later versions say
    }
  }

  #jobIs(job) {
    const first = this.#state !== "open";
    this.job = job;
    if (first) {
      // from now on this job, at the chunk that comes next
      this.#failures = 0;
      this.#become("open");
      this.#opened?.resolve(job);
      this.#opened = null;
      this.#settlePrompts(job);
    }
    this.#known = (job.prompt_updates ?? []).length;
    this.#emit("job", job);
    if (job.end_time !== undefined && job.state !== "JOB_STATE_SUCCEEDED" && job.error) {
      this.#lastError = new HeliosError({ message: job.error.message, code: "aborted", reason: job.error.reason });
    }
  }

  /** After a lost socket: prompts that arrived without their answer are found in the job, others are sent again. */
  #settlePrompts(job) {
    const arrived = (job.prompt_updates ?? []).slice(this.#known);
    for (const entry of [...this.#prompts]) {
      const at = arrived.findIndex((update) => update.prompt === entry.text);
      if (at >= 0 && entry.message >= 0) {
        const [update] = arrived.splice(at, 1);
        this.#prompts.splice(this.#prompts.indexOf(entry), 1);
        entry.resolve(update.chunk_index ?? 0);
      } else {
        this.#sendPrompt(entry);
      }
    }
  }

  #sendPrompt(entry) {
    entry.message = this.#sent;
    this.#say({ type: "prompt", prompt: entry.text, ...entry.options });
  }

  #answered(message, settle) {
    const at = this.#prompts.findIndex((entry) => entry.message === message);
    if (at >= 0) settle(this.#prompts.splice(at, 1)[0]);
  }

  #bytes(data) {
    const view = new DataView(data.buffer, data.byteOffset, HEADER_BYTES);
    const [init, last, index] = [view.getUint8(0) === INIT, view.getUint8(1) === 1, view.getUint32(4)];
    this.#parts.push(data.subarray(HEADER_BYTES));
    if (!last) return;
    const whole = this.#parts.length === 1 ? this.#parts[0] : joined(this.#parts);
    this.#parts = [];
    if (init) {
      if (this.#initDone) return; // sent anew with each connection, and always the same
      this.#initDone = true;
    } else {
      if (index < this.#next) return;
      this.#next = index + 1;
    }
    this.#emit("segment", { init, index, data: whole });
  }

  #refused(error) {
    const first = this.job?.first_chunk ?? 0;
    if (error.code === "out_of_range" && first > this.#next) {
      this.#next = first; // what an endless session no longer keeps is skipped
      this.#lost(error);
    } else if (PASSING.has(error.code)) this.#lost(error);
    else this.#fail(error);
  }

  /** The socket is gone; unless all has been said, another takes its place. */
  #lost(error = null) {
    if (this.#state === "new" || this.#state === "ended" || this.#state === "failed") return;
    this.#drop();
    if (this.job?.end_time !== undefined) {
      const all = this.job.chunks_total > 0 && this.#next >= this.job.chunks_total;
      if (all || this.job.state !== "JOB_STATE_SUCCEEDED") {
        if (this.#lastError) this.#fail(this.#lastError);
        else this.#end("ended");
        return;
      }
    }
    if (this.job) this.#first = { type: "attach", job_id: this.job.id, from_chunk: this.#next };
    if (this.#state !== "lost" && this.#failures === 0) this.#lostAt = Date.now();
    if (Date.now() - this.#lostAt > this.#patienceMs) {
      const message = `the service has not answered for ${Math.round(this.#patienceMs / 1000)} s`;
      this.#fail(error ?? new HeliosError({ message, code: "unavailable" }));
      return;
    }
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#failures) * (0.75 + Math.random() / 2);
    this.#failures += 1;
    this.#become("lost");
    this.#retry = setTimeout(() => this.#connect(), wait);
  }

  #listen() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost(), SILENCE_MS);
  }

  #say(message, greeting = false) {
    if (!greeting && this.#state !== "open") {
      // prompts and the viewer's place are said again after a lost socket; so is the last of these
      if (message.type === "stop" || message.type === "pause" || message.type === "resume") this.#wish = message;
      return;
    }
    this.#socket.send(JSON.stringify(message));
    this.#sent += 1;
  }

  #become(state) {
    if (state === this.#state) return;
    this.#state = state;
    if (state === "open" && this.#wish) {
      const wish = this.#wish;
      this.#wish = null;
      this.#say(wish);
    }
    this.#emit("state", state);
  }

  #fail(error) {
    this.#opened?.reject(error);
    this.#opened = null;
    for (const entry of this.#prompts.splice(0)) entry.reject(error);
    this.#end("failed");
    this.#emit("failed", error);
  }

  #end(state) {
    this.#drop();
    clearTimeout(this.#retry);
    globalThis.removeEventListener?.("offline", this.onOffline);
    globalThis.removeEventListener?.("online", this.onOnline);
    const left = new HeliosError({ message: "the session has ended", code: "cancelled" });
    for (const entry of this.#prompts.splice(0)) entry.reject(left);
    this.#become(state);
  }

  #drop() {
    clearTimeout(this.#silence);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/**
 * Puts a session's segments into a video element by Media Source Extensions, and tells the session what was played.
 *
 * What is behind the picture by more than `behindSeconds` is dropped, so that a session of hours takes no more memory than
 * one of minutes; what is ahead by more than `aheadSeconds` waits.
 */
export class VideoFeed {
  #video;
  #session;
  #source = null;
  #buffer = null;
  #queue = [];
  #behind;
  #ahead;
  #over = false;
  #starts = new Map(); // chunk index: [start, end] in seconds
  #listeners = new AbortController();
  #url = "";

  static get supported() {
    return Boolean(mediaSource());
  }

  constructor(video, session, { behindSeconds = 30, aheadSeconds = 60 } = {}) {
    this.#video = video;
    this.#session = session;
    this.#behind = behindSeconds;
    this.#ahead = aheadSeconds;
    const { signal } = this.#listeners;
    session.addEventListener("segment", (event) => this.#take(event.detail), { signal });
    session.addEventListener("chunk", (event) => this.#know(event.detail), { signal });
    session.addEventListener("state", (event) => event.detail === "ended" && this.#finish(), { signal });
    for (const type of ["timeupdate", "ended", "seeked"]) {
      video.addEventListener(type, () => this.#moved(), { signal });
    }
  }

  /** Seconds that can be played without another byte. */
  get bufferedSeconds() {
    const { buffered, currentTime } = this.#video;
    for (let n = 0; n < buffered.length; n += 1) {
      if (buffered.start(n) <= currentTime + 0.1 && currentTime < buffered.end(n)) return buffered.end(n) - currentTime;
    }
    return 0;
  }

  /** The chunk at a time of the video, or -1. */
  chunkAt(seconds) {
    for (const [index, [start, end]] of this.#starts) if (start <= seconds + 1e-3 && seconds + 1e-3 < end) return index;
    return -1;
  }

  /** When a chunk begins, in seconds of the video; undefined as long as it has not arrived. */
  startOf(index) {
    return this.#starts.get(index)?.[0];
  }

  /** Lets go of video and session. */
  close() {
    this.#listeners.abort();
    this.#queue = [];
    if (this.#url) URL.revokeObjectURL(this.#url);
  }

  #know(chunk) {
    const start = seconds(chunk.start);
    this.#starts.set(chunk.index, [start, start + seconds(chunk.duration)]);
  }

  #take({ init, data }) {
    if (init) this.#open(data);
    this.#queue.push(data);
    this.#pump();
  }

  #open(init) {
    const Source = mediaSource();
    this.#source = new Source();
    if (Source !== globalThis.MediaSource) this.#video.disableRemotePlayback = true; // iPhones ask for it
    this.#source.addEventListener(
      "sourceopen",
      () => {
        this.#buffer = this.#source.addSourceBuffer(`video/mp4; codecs="${codec(init)}"`);
        this.#buffer.addEventListener("updateend", () => this.#pump());
        this.#pump();
      },
      { once: true },
    );
    this.#url = URL.createObjectURL(this.#source);
    this.#video.src = this.#url;
  }

  #pump() {
    const buffer = this.#buffer;
    if (!buffer || buffer.updating || this.#source.readyState !== "open") return;
    this.#reach();
    const { buffered } = buffer;
    const now = this.#video.currentTime;
    if (buffered.length && now - buffered.start(0) > this.#behind * 1.5) {
      buffer.remove(0, now - this.#behind);
      return;
    }
    if (this.#queue.length && this.bufferedSeconds < this.#ahead) {
      try {
        buffer.appendBuffer(this.#queue[0]);
        this.#queue.shift();
      } catch (error) {
        if (error.name !== "QuotaExceededError") throw error;
        this.#behind = Math.max(2, this.#behind / 2);
        if (buffered.length && now - buffered.start(0) > this.#behind) buffer.remove(0, now - this.#behind);
      }
    } else if (this.#over && !this.#queue.length) {
      this.#source.endOfStream();
    }
  }

  /** A session that was joined in its middle begins where its first chunk does; what is missing is skipped. */
  #reach() {
    const { buffered, currentTime } = this.#video;
    for (let n = 0; n < buffered.length; n += 1) {
      if (currentTime < buffered.end(n) - 0.05) {
        if (currentTime < buffered.start(n)) this.#video.currentTime = buffered.start(n);
        return;
      }
    }
  }

  #moved() {
    this.#pump();
    const now = this.#video.currentTime;
    let seen = 0;
    for (const [index, [, end]] of this.#starts) {
      if (end <= now + 0.05) seen = Math.max(seen, index + 1);
      if (end < now - 3600) this.#starts.delete(index);
    }
    if (seen) this.#session.played(seen);
  }

  #finish() {
    this.#over = true;
    this.#pump();
  }
}

/** Seconds of a duration as JSON has it: "1.375s". */
export function seconds(duration) {
  return duration ? Number.parseFloat(duration) : 0;
}

function mediaSource() {
  return globalThis.MediaSource ?? globalThis.ManagedMediaSource;
}

/** The codec's name, from the H.264 configuration in the init segment. */
function codec(init) {
  for (let n = 0; n + 8 < init.length; n += 1) {
    if (init[n] === 0x61 && init[n + 1] === 0x76 && init[n + 2] === 0x63 && init[n + 3] === 0x43) {
      return `avc1.${[...init.subarray(n + 5, n + 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
    }
  }
  throw new Error("the init segment has no H.264 configuration");
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
