// The settings of the next video: what the model allows, and what the viewer chose.

import { HeliosError } from "./helios.js";

const SHAPES = [
  ["wide", 1, 1],
  ["tall", 0, 1],
  ["square", 0.5, 1],
  ["large", 1, 2],
];
const FALLBACK = { frames_per_chunk: 33, size_multiple: 64, max_pixels: 384 * 640, defaults: { height: 384, width: 640, fps: 24 } };

/** The fields of the form, by their ids. */
export class Settings {
  #at;
  #file = null;
  #uploaded = null; // { file, field, id }
  model = FALLBACK;
  name = "";

  constructor(ids, { onFile, onRefused }) {
    this.#at = ids;
    ids.file.addEventListener("change", () => this.#choose(ids.file.files[0]));
    ids.undrop.addEventListener("click", () => this.#choose(null));
    ids.token.value = sessionStorage.getItem("helios.token") ?? "";
    ids.token.addEventListener("change", () => sessionStorage.setItem("helios.token", this.token));
    for (const zone of [ids.drop, ids.stage]) {
      zone.addEventListener("dragover", (event) => {
        if (ids.settings.disabled) return;
        event.preventDefault();
        zone.classList.add("over");
      });
      zone.addEventListener("dragleave", () => zone.classList.remove("over"));
      zone.addEventListener("drop", (event) => {
        event.preventDefault();
        zone.classList.remove("over");
        if (!ids.settings.disabled) this.#choose(event.dataTransfer.files[0] ?? null);
      });
    }
    this.onFile = onFile;
    this.onRefused = onRefused;
  }

  get token() {
    return this.#at.token.value.trim();
  }

  /** What goes with every request. */
  get headers() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  get chunkSeconds() {
    return this.model.frames_per_chunk / (this.model.defaults.fps ?? 24);
  }

  /** Asks the service what its model allows. Throws a HeliosError. */
  async load() {
    const { data } = await this.call("/v1/models");
    this.name = data[0].id;
    this.model = { ...FALLBACK, ...data[0].helios };
    this.#sizes();
  }

  /** A call of the service's own API. Throws a HeliosError. */
  async call(path, options = {}) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: { ...this.headers, ...options.headers } });
    } catch {
      throw new HeliosError({ message: "the network or the service is away", code: "unavailable" });
    }
    const content = await response.json().catch(() => ({}));
    if (response.ok) return content;
    throw new HeliosError(content.error ?? { message: `the service answered ${response.status}`, code: "unknown" });
  }

  /** GenerationParams, with the file sent before. Throws a HeliosError. */
  async params(prompt) {
    const { length, size, steps, seed } = this.#at;
    const [width, height] = size.value.split("x").map(Number);
    const params = { prompt, width, height };
    if (length.value === "open") params.open_ended = true;
    else params.num_frames = Math.ceil((Number(length.value) * (this.model.defaults.fps ?? 24)) / this.model.frames_per_chunk)
      * this.model.frames_per_chunk;
    const stages = this.model.defaults.pyramid_steps;
    if (steps.value && stages) params.pyramid_steps = stages.map(() => Number(steps.value));
    else if (steps.value) params.num_inference_steps = Number(steps.value);
    if (seed.value.trim()) params.seed = seed.value.trim();
    if (this.#file) params[this.#field] = await this.#upload();
    return params;
  }

  /** Shows what a link asks for. */
  fill({ seed, width, height, pyramid_steps: stages, num_inference_steps: steps }) {
    this.#at.seed.value = seed ?? "";
    const size = `${width}x${height}`;
    if (![...this.#at.size.options].some((each) => each.value === size)) this.#option(width, height, "as in the link");
    this.#at.size.value = size;
    this.#at.steps.value = stages?.[0] ?? steps ?? "";
  }

  get #field() {
    return this.#file.type.startsWith("video/") ? "video_id" : "image_id";
  }

  async #upload() {
    if (this.#uploaded?.file !== this.#file) {
      const media = await this.call("/v1/media", {
        method: "POST",
        headers: { "Content-Type": this.#file.type || "application/octet-stream" },
        body: this.#file,
      });
      this.#uploaded = { file: this.#file, id: media.id };
    }
    return this.#uploaded.id;
  }

  #choose(file) {
    if (file && !/^(image|video)\//.test(file.type)) {
      this.onRefused(`“${file.name}” is neither a picture nor a clip.`);
      return;
    }
    this.#file = file ?? null;
    this.#at.dropped.hidden = !file;
    this.#at["dropped-name"].textContent = file?.name ?? "";
    if (!file) this.#at.file.value = "";
    this.onFile(this.#file);
  }

  #sizes() {
    const { defaults, size_multiple: step, max_pixels: most } = this.model;
    const [wide, high] = [defaults.width ?? 640, defaults.height ?? 384];
    this.#at.size.replaceChildren();
    for (const [name, lying, times] of SHAPES) {
      const near = (pixels) => Math.max(step, Math.round(pixels / step) * step);
      const side = Math.sqrt(wide * high);
      const [width, height] =
        lying === 1 ? [near(wide * times), near(high * times)] : lying === 0 ? [near(high), near(wide)] : [near(side), near(side)];
      if (width * height <= most) this.#option(width, height, name);
    }
  }

  #option(width, height, name) {
    const option = document.createElement("option");
    option.value = `${width}x${height}`;
    option.textContent = `${width} × ${height}, ${name}`;
    if ([...this.#at.size.options].every((each) => each.value !== option.value)) this.#at.size.append(option);
  }
}
