// Links that carry all they need behind the #, which no server sees.

const VERSION = "1";

/** What a link says: { watch }, { replay }, or nothing. A link that is damaged says nothing. */
export function fromLink(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  if (fields.get("watch")) return { watch: fields.get("watch") };
  if (fields.get("v") !== VERSION || !fields.get("replay")) return {};
  try {
    const replay = JSON.parse(new TextDecoder().decode(unpacked(fields.get("replay"))));
    return typeof replay?.prompt === "string" ? { replay } : {};
  } catch {
    return {};
  }
}

/** A link to the session as it runs. */
export function watchLink(jobId) {
  return address({ watch: jobId });
}

/** A link that makes the job's video again: the same prompts at the same chunks, from the same seed. */
export function replayLink(job, chunks) {
  const { params } = job;
  const replay = {
    prompt: params.prompt,
    seed: String(params.seed ?? 0),
    width: params.width,
    height: params.height,
    chunks,
    prompts: [...(params.prompt_schedule ?? []), ...(job.prompt_updates ?? [])].map((each) => [
      each.chunk_index ?? 0,
      each.prompt,
      each.interpolation_chunks ?? 3,
    ]),
  };
  for (const name of ["pyramid_steps", "num_inference_steps"]) if (params[name]) replay[name] = params[name];
  return address({ v: VERSION, replay: packed(new TextEncoder().encode(JSON.stringify(replay))) });
}

/** GenerationParams of a replay. */
export function replayParams(replay, framesPerChunk) {
  const schedule = new Map(); // of prompts for one chunk, the last is seen
  for (const [chunk, prompt, over] of replay.prompts ?? []) {
    schedule.set(chunk, { chunk_index: chunk, prompt, interpolation_chunks: over });
  }
  const params = {
    prompt: replay.prompt,
    seed: replay.seed,
    width: replay.width,
    height: replay.height,
    num_frames: replay.chunks * framesPerChunk,
    prompt_schedule: [...schedule.values()].filter((each) => each.chunk_index < replay.chunks),
  };
  for (const name of ["pyramid_steps", "num_inference_steps"]) if (replay[name]) params[name] = replay[name];
  return params;
}

function address(fields) {
  const url = new URL(location.href);
  url.hash = new URLSearchParams(fields).toString();
  return url.href;
}

function packed(bytes) {
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function unpacked(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
}
