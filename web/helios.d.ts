// Types of helios.js. Fields of jobs and requests are those of protos/helios/v1/video_generation.proto, as JSON has them:
// 64-bit integers are strings, times are ISO 8601, durations are seconds with an "s" ("1.375s").

/** GenerationParams: what to generate. Unset fields take the model's defaults. */
export interface GenerationParams {
  prompt: string;
  negative_prompt?: string;
  num_frames?: number;
  height?: number;
  width?: number;
  seed?: string | number;
  pyramid_steps?: number[];
  num_inference_steps?: number;
  guidance_scale?: number;
  fps?: number;
  image_id?: string;
  video_id?: string;
  continue_from?: string;
  prompt_schedule?: ScheduledPrompt[];
  open_ended?: boolean;
  [field: string]: unknown;
}

/** A prompt that takes over at a chunk. */
export interface ScheduledPrompt {
  chunk_index: number;
  prompt: string;
  interpolation_chunks?: number;
}

/** SubmitJobRequest. */
export interface StartRequest {
  model?: string;
  params: GenerationParams;
  idempotency_key?: string;
  labels?: Record<string, string>;
}

/** Job. */
export interface Job {
  id: string;
  state: string;
  model: string;
  params: GenerationParams;
  chunks_done: number;
  chunks_total: number;
  first_chunk: number;
  paused: boolean;
  video_bytes: string;
  prompt_updates: ScheduledPrompt[];
  error?: { reason: string; message: string };
  create_time?: string;
  start_time?: string;
  end_time?: string;
  [field: string]: unknown;
}

/** ChunkInfo. */
export interface ChunkInfo {
  index: number;
  num_frames: number;
  start: string;
  duration: string;
  size_bytes: string;
  ready_time: string;
  stages: Record<string, string>;
}

/** Bytes of the video: the init segment, or a chunk's fragment. */
export interface Segment {
  init: boolean;
  index: number;
  data: Uint8Array;
}

export type SessionState = "new" | "connecting" | "open" | "lost" | "ended" | "failed";

/** Why the service refused something. */
export class HeliosError extends Error {
  code: string;
  fields: { field: string; value: string; allowed: string }[];
  quota: string;
  reason: string;
  retryAfterSeconds: number | null;
}

export interface SessionOptions {
  /** Of the socket. Default: `/v1/realtime/video` of the page's own origin. */
  url?: string;
  /** From `POST /v1/realtime/tokens`. Needed where the service asks for API keys. */
  token?: string;
  /** How long a lost service is tried again. Default 120. */
  patienceSeconds?: number;
}

/**
 * One session, over as many sockets as it takes.
 *
 * Events: "job" (detail: Job), "chunk" (ChunkInfo), "segment" (Segment), "state" (SessionState), "failed" (HeliosError).
 */
export class HeliosSession extends EventTarget {
  constructor(options?: SessionOptions);
  readonly state: SessionState;
  readonly job: Job | null;
  readonly jobId: string;
  readonly nextChunk: number;
  start(request: StartRequest): Promise<Job>;
  attach(jobId: string, fromChunk?: number): Promise<Job>;
  prompt(text: string, options?: { chunkIndex?: number; interpolationChunks?: number }): Promise<number>;
  pause(): void;
  resume(): void;
  stop(): void;
  played(chunks: number): void;
  close(): void;
}

export interface FeedOptions {
  /** Seconds of video kept behind the picture. Default 30. */
  behindSeconds?: number;
  /** Seconds of video put in ahead of it. Default 60. */
  aheadSeconds?: number;
}

/** Puts a session's segments into a video element, and tells the session what was played. */
export class VideoFeed {
  constructor(video: HTMLVideoElement, session: HeliosSession, options?: FeedOptions);
  static readonly supported: boolean;
  readonly bufferedSeconds: number;
  chunkAt(seconds: number): number;
  startOf(index: number): number | undefined;
  close(): void;
}

/** Where the socket is, for a page that the service itself serves. */
export function defaultUrl(): string;
/** Seconds of a duration as JSON has it: "1.375s". */
export function seconds(duration: string | undefined): number;
