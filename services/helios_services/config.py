"""Configuration of every component: one YAML file (`--config` or HELIOS_CONFIG) and environment variables.

Precedence: environment over file over defaults. A value of the tree is named in the environment by its path,
for example HELIOS_GATEWAY__PORT=50051 or HELIOS_MODEL__CHECKPOINT=/models/Helios-Distilled. HELIOS_REDIS_URL and
HELIOS_STATE_DIR are read as they are.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from helios_services.redaction import scrub
from helios_services.webhooks.targets import check_place

PositiveFloat = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class ConfigError(ValueError):
    """The configuration cannot be used; the message names each field, value and what is allowed."""


class Section(BaseModel):
    """Frozen, and strict about unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(Section):
    """The model this service runs and the limits of its jobs."""

    name: str = Field("helios-distilled", pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    variant: Literal["base", "mid", "distilled"] = "distilled"
    """What the checkpoint is; the gateway, which does not read it, checks requests by it."""
    checkpoint: str = ""
    """Folder in the published diffusers layout, or a Hub id (org/name, optionally @revision). Not for the gateway."""
    loras: dict[str, str] = {}
    """LoRA adapters that requests may name, and their files."""
    merged_loras: dict[str, float] = {}
    """LoRA adapter files that become part of the weights, and their scales."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    max_frames: PositiveInt = 14_520
    max_pixels: PositiveInt = 1280 * 768


class RedisConfig(Section):
    """Where jobs are kept."""

    url: str = ""
    """redis:// or rediss:// (TLS) URL. Empty: the embedded server under the state folder."""
    username: str = ""
    """ACL user of `password_file`'s password; empty: Redis' default user."""
    password_file: str = ""
    """File that holds the password and nothing else; read again for each connection. Keeps it out of the URL."""
    tls_ca_file: str = ""
    """PEM authorities of the server's certificate; empty: the system's."""
    tls_certificate_file: str = ""
    """PEM certificate chain of this client, with `tls_key_file`, for mutual TLS."""
    tls_key_file: str = ""
    cluster: bool = False
    """The URL is that of a node of a Redis Cluster, which names the others."""
    namespace: str = Field("default", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    socket_timeout_s: PositiveFloat = 5.0


class JobsConfig(Section):
    """Queue bounds, leases and retention."""

    max_queued: PositiveInt = 1000
    max_attempts: PositiveInt = 5
    """Lost workers or replicas in a row, without a finished chunk, after which a job fails."""
    fair_quantum_chunks: PositiveFloat = 4.0
    """A job gives way to one of equal priority whose account has had less by so many chunks, each over its weight."""
    lease_s: PositiveFloat = 15.0
    heartbeat_s: PositiveFloat = 5.0
    job_ttl_s: PositiveFloat = 7 * 86400.0
    """How long the record of an ended job is kept."""
    chunk_ttl_s: PositiveFloat = 3600.0
    """How long the chunks of an ended job can be streamed, and how long it can be continued."""
    live_window_chunks: PositiveInt = 64
    """Chunks of an open-ended job that are kept, older ones are dropped; a live session waits for its reader, so many
    chunks ahead of it."""
    max_prompt_updates: PositiveInt = 1000
    """Times that a job's prompt can be changed while it runs."""
    session_grace_s: PositiveFloat = 30.0
    """How long a live session goes on without its client."""
    pause_limit_s: PositiveFloat = 600.0
    """How long a job can be paused before it is stopped."""

    @field_validator("heartbeat_s")
    @classmethod
    def _two_heartbeats_a_lease(cls, value: float, info: ValidationInfo) -> float:
        lease_s = info.data.get("lease_s", value * 2)
        if value * 2 > lease_s:
            raise ValueError(f"must be at most half of lease_s, {lease_s / 2}")
        return value


class GatewayConfig(Section):
    """The gRPC server."""

    host: str = "127.0.0.1"
    port: Port = 50051
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 9464
    health_port: Port | None = None
    """Health without TLS and apart from `max_concurrent_rpcs`, on `host`: for probes that speak no TLS. Unset: none."""
    max_message_bytes: PositiveInt = 16 * 1024 * 1024
    max_concurrent_rpcs: PositiveInt = 2000
    drain_s: PositiveFloat = 20.0
    reflection: bool = True
    api_keys_file: str = ""
    """YAML file of API keys (`helios keys new` makes entries). Empty: no key is asked for."""
    tls_certificate_file: str = ""
    """PEM certificate chain; with `tls_key_file` turns TLS on. Both are read again when they change."""
    tls_key_file: str = ""
    tls_client_ca_file: str = ""
    """PEM authorities of client certificates, which are then required (mutual TLS)."""


class AutoscalingConfig(Section):
    """Replica bounds of one deployment, and how much work is enough for one more; equal bounds mean a fixed number."""

    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, gt=0, validate_default=True)
    backlog_target_s: PositiveFloat = 60.0
    """Replicas are added until the chunks that wait could be made in this time."""
    live_utilization: float = Field(0.8, gt=0, le=1)
    """Share of a replica's time that live jobs may plan on; the rest absorbs their collisions."""
    assumed_chunk_s: PositiveFloat = 1.2
    """Time of a chunk until the first one was measured."""
    upscale_delay_s: float = Field(5.0, ge=0)
    """More work must last this long before replicas are added; the first one is added at once."""
    downscale_delay_s: float = Field(300.0, ge=0)
    """Replicas are kept for what was needed at any moment of this time."""

    @field_validator("max_replicas")
    @classmethod
    def _bounds_in_order(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("min_replicas", 0):
            raise ValueError(f"must be at least min_replicas, {info.data['min_replicas']}")
        return value

    @property
    def fixed(self) -> bool:
        """Whether the number of replicas never changes."""
        return self.min_replicas == self.max_replicas


class DeploymentConfig(Section):
    """Resources, concurrency and timeouts of one Ray Serve deployment."""

    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0)
    accelerator_type: str = ""
    """Ray accelerator type, for example "H100". Empty: any node."""
    device: str = "cpu"
    autoscaling: AutoscalingConfig = AutoscalingConfig()
    max_ongoing_requests: PositiveInt = 1
    request_timeout_s: PositiveFloat = 600.0
    """The dispatcher gives up on a call after this long (waiting included) and repeats it."""
    start_timeout_s: PositiveFloat = 1800.0
    """While no replica runs (scaled to zero, or starting), giving up on a call is not a loss, for this long."""
    graceful_shutdown_timeout_s: PositiveFloat = 30.0
    graceful_shutdown_wait_loop_s: PositiveFloat = 0.5
    health_check_period_s: PositiveFloat = 5.0
    health_check_timeout_s: PositiveFloat = 30.0
    torch_threads: int = Field(0, ge=0)
    """CPU threads torch uses in a replica; 0 leaves torch's default."""


class DispatcherConfig(DeploymentConfig):
    """The dispatcher: claims jobs and drives them."""

    num_cpus: float = Field(0.1, ge=0)
    concurrent_jobs: PositiveInt = 2
    """Jobs one dispatcher replica drives at a time."""
    interactive_jobs: int = Field(1, ge=0)
    """Interactive jobs that it drives besides: they start while all other slots are busy."""
    claim_poll_s: PositiveFloat = 1.0
    """Longest wait between looks at the queue when no notification arrives."""
    publish_attempts: PositiveInt = 5
    """Tries to write a finished video to the artifact store before the job fails."""
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 9465

    @field_validator("autoscaling")
    @classmethod
    def _fixed_number(cls, value: AutoscalingConfig) -> AutoscalingConfig:
        if not value.fixed:
            raise ValueError("min_replicas and max_replicas must be equal: dispatchers are what scales the others")
        return value

    @property
    def slots(self) -> int:
        """Jobs that all dispatchers together drive at a time."""
        return (self.concurrent_jobs + self.interactive_jobs) * self.autoscaling.max_replicas


class ParallelConfig(Section):
    """The devices one denoiser replica spans: cfg_degree x ring_degree x ulysses_degree ranks, one device each."""

    ulysses_degree: PositiveInt = 1
    """Ranks that trade shards of the sequence for shards of the heads: at most as many as the model has heads."""
    ring_degree: PositiveInt = 1
    """Ranks that pass keys and values round."""
    cfg_degree: Literal[1, 2] = 1
    """2: the passes with and without the prompt run on ranks of their own."""
    placement: Literal["STRICT_PACK", "PACK"] = "STRICT_PACK"
    """STRICT_PACK: all ranks on one node, which is where NVLink is. PACK: on several if no node is free enough."""
    timeout_s: PositiveFloat = 300.0
    """After this long without an answer from another rank a replica is given up and replaced."""

    @property
    def world_size(self) -> int:
        """Ranks of one replica; each takes the deployment's num_cpus and num_gpus."""
        return self.cfg_degree * self.ring_degree * self.ulysses_degree


class DenoiserConfig(DeploymentConfig):
    """The DiT denoiser."""

    max_ongoing_requests: PositiveInt = 4
    """Calls that a replica takes on; it serves one at a time, the most urgent of those that wait first. With several
    replicas 1 is the better value: a call then waits for whichever replica is free first."""
    prompt_cache_entries: PositiveInt = 4
    """Prompts whose cross-attention keys and values a replica keeps (420 MB each at full size)."""
    guidance_batching: Literal["auto", "always", "never"] = "auto"
    """Run the two passes of classifier-free guidance as one batch: auto does if the device's memory allows it."""
    offload_budget_gb: float | None = Field(None, gt=0)
    """Device memory for the DiT's blocks, GB (10^9 bytes); the others wait in host memory. Unset: all on the device."""
    compile: Literal["off", "regional", "graphs"] = "off"
    """On a GPU: off launches the fused kernels one by one, regional compiles the blocks instead, graphs records CUDA
    graphs of whole forwards. Compiled code is kept under the state folder."""
    fp8: bool = False
    """The DiT's large linear layers in 8-bit floating point: faster, at a loss of precision; from Ada and Hopper on."""
    parallel: ParallelConfig = ParallelConfig()

    @model_validator(mode="after")
    def _accelerations_go_together(self) -> "DenoiserConfig":
        if self.compile != "off" and self.parallel.world_size > 1:
            raise ValueError(f"compile must be off with {self.parallel.world_size} ranks, is {self.compile}")
        if self.compile == "graphs" and not self.device.startswith("cuda"):
            raise ValueError(f"compile must be off or regional on {self.device}, is graphs")
        if self.offload_budget_gb is not None and (self.fp8 or self.compile != "off"):
            raise ValueError("offload_budget_gb must not be set with fp8 or compile")
        return self

    @model_validator(mode="after")
    def _resources_for_each_rank(self) -> "DenoiserConfig":
        ranks = self.parallel.world_size
        if ranks > 1 and self.device.startswith("cuda") and self.num_gpus != 1:  # NCCL refuses two ranks on one device
            raise ValueError(f"num_gpus must be 1 with {ranks} ranks on {self.device}, is {self.num_gpus}")
        if ranks > 1 and not self.num_cpus and not self.num_gpus:
            raise ValueError(f"num_cpus must not be 0 with {ranks} ranks on {self.device}: nothing to place them by")
        return self


class TextEncoderConfig(DeploymentConfig):
    """The UMT5 text encoder."""

    max_ongoing_requests: PositiveInt = 32
    cache_entries: PositiveInt = 256


class DecoderConfig(DeploymentConfig):
    """The VAE decoder and H.264 encoder."""

    vae_dtype: Literal["float32", "bfloat16"] = "float32"
    """What chunks are decoded in; uploads are encoded in float32."""
    crf: int = Field(18, ge=0, le=51)
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"] = "veryfast"
    encoder_threads: PositiveInt = 2


class MediaConfig(Section):
    """Limits of the pictures and clips that users send, and of the process that decodes one."""

    max_bytes: PositiveInt = 64 * 1024 * 1024
    max_pixels: PositiveInt = 4096 * 4096
    """Of a frame as it is in the file."""
    max_frames: PositiveInt = 7200
    """Of a clip as it is in the file."""
    max_duration_s: PositiveFloat = 300.0
    decode_timeout_s: PositiveFloat = 60.0
    """From the start of the decoding process to its last byte."""
    cpu_s: PositiveInt = 45
    ttl_s: PositiveFloat = 86400.0
    """How long an upload is kept; longer once a job was given it."""
    max_files: PositiveInt = 1000
    """Uploads that are kept at a time."""
    memory_bytes: int = Field(2 * 1024**3, ge=512 * 1024**2)
    """Address space of the decoding process: the file, the decoder's frames and the result must fit."""


class WebhooksConfig(Section):
    """HTTP calls that tell clients of ended jobs."""

    urls: tuple[str, ...] = ()
    """Where they may go: URLs that a job's webhook_url must equal or lie below. Empty: nowhere."""
    secret_file: str = ""
    """File of the secrets that sign them, one a line (whsec_ and base64); all sign, so that one can take over."""
    timeout_s: PositiveFloat = 10.0
    max_tries: PositiveInt = 12
    first_wait_s: PositiveFloat = 5.0
    """Before the second try; the waits double, up to `longest_wait_s`."""
    longest_wait_s: PositiveFloat = 3600.0

    @model_validator(mode="after")
    def _places_and_secret(self) -> "WebhooksConfig":
        for url in self.urls:
            try:
                check_place(url)
            except ValueError as error:
                raise ValueError(f"urls: {url!r} {error}") from None
        if self.urls and not self.secret_file:
            raise ValueError("secret_file must be set where there are urls")
        return self


class TracingConfig(Section):
    """OpenTelemetry traces."""

    otlp_endpoint: str = ""
    """OTLP/gRPC collector, for example http://otel-collector:4317. Empty: no traces."""
    sample_ratio: float = Field(1.0, ge=0, le=1)
    """Share of the traces that are recorded where the caller has not decided."""
    export_delay_s: PositiveFloat = 5.0


class ServiceConfig(Section):
    """Everything."""

    state_dir: Path = Path("~/.local/state/helios")
    artifact_url: str = ""
    """fsspec URL of the folder for finished videos. Empty: `artifacts` under the state folder."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    model: ModelConfig = ModelConfig()
    redis: RedisConfig = RedisConfig()
    jobs: JobsConfig = JobsConfig()
    gateway: GatewayConfig = GatewayConfig()
    dispatcher: DispatcherConfig = DispatcherConfig()
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    decoder: DecoderConfig = DecoderConfig()
    media: MediaConfig = MediaConfig()
    tracing: TracingConfig = TracingConfig()
    webhooks: WebhooksConfig = WebhooksConfig()

    @model_validator(mode="after")
    def _adapters_per_request_need_plain_layers(self) -> "ServiceConfig":
        if self.model.loras and (self.denoiser.fp8 or self.denoiser.compile != "off"):
            raise ValueError("model.loras must be empty with denoiser.fp8 or denoiser.compile; merged_loras may be set")
        return self

    @property
    def artifacts(self) -> str:
        """URL of the artifact folder."""
        return self.artifact_url or str(self.state_dir / "artifacts")

    @property
    def compile_cache(self) -> Path:
        """Folder for compiled code."""
        return self.state_dir / "compile-cache"

    @property
    def uploads(self) -> str:
        """URL of the folder for uploads."""
        return f"{self.artifacts}/uploads"


def with_variant(config: ServiceConfig, variant: str) -> ServiceConfig:
    """The configuration for a checkpoint of this variant. Raises ConfigError if another one is configured."""
    if "variant" in config.model.model_fields_set:
        check_variant(config, variant)
    return config.model_copy(update={"model": config.model.model_copy(update={"variant": variant})})


def check_variant(config: ServiceConfig, variant: str) -> None:
    """Raises ConfigError unless the configured variant is the checkpoint's."""
    if config.model.variant != variant:
        raise ConfigError(
            f"model.variant: {config.model.variant!r} is not allowed; allowed: {variant!r}, which the checkpoint is"
        )


_ALIASES = {"HELIOS_REDIS_URL": "HELIOS_REDIS__URL"}
_PREFIX = "HELIOS_"
_NOT_SETTINGS = {
    "HELIOS_CONFIG",
    "HELIOS_SERVER",
    "HELIOS_API_KEY",
    "HELIOS_API_KEY_FILE",
    "HELIOS_TLS",
    "HELIOS_CA_FILE",
}
"""Of the command line and its clients."""


def load_config(path: str | Path | None = None, environ: dict[str, str] | None = None) -> ServiceConfig:
    """Builds the configuration from a file (default: $HELIOS_CONFIG, if set) and the environment.

    Raises ConfigError naming every field that is unknown or out of bounds.
    """
    env = dict(os.environ if environ is None else environ)
    source = path or env.get("HELIOS_CONFIG")
    tree = _read_file(Path(source)) if source else {}
    for name, value in sorted(env.items()):
        if name.startswith(_PREFIX) and name not in _NOT_SETTINGS:
            _assign(tree, _ALIASES.get(name, name)[len(_PREFIX) :].lower().split("__"), value)
    try:
        config = ServiceConfig.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(_problem(e["loc"], e["input"], e["msg"]) for e in error.errors(include_url=False))
        raise ConfigError(f"configuration: {problems}") from None
    return config.model_copy(update={"state_dir": config.state_dir.expanduser().absolute()})


def _problem(location: tuple[int | str, ...], given: Any, message: str) -> str:
    """Values of the section `redis` are not shown: a password may stand in the wrong place."""
    named = ".".join(map(str, location))
    shown = "[redacted]" if location[:1] == ("redis",) and location != ("redis", "namespace") else repr(given)
    return f"{named}: {scrub(shown)} ({message})"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"configuration file {path}: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"configuration file {path}: must hold a mapping, holds {type(tree).__name__}")
    return tree


def _assign(tree: dict[str, Any], path: list[str], value: str) -> None:
    for name in path[:-1]:
        child = tree.setdefault(name, {})
        if not isinstance(child, dict):
            raise ConfigError(f"configuration: {name}: must be a mapping, is {child!r}")
        tree = child
    tree[path[-1]] = value
