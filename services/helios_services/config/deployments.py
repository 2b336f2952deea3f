"""Settings of the Ray Serve deployments."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from helios_engine.options import AttentionKernel, Auto, CompileMode, DeviceType, GuidanceBatching, VAEDtypeName
from helios_services.config.section import Port, PositiveFloat, PositiveInt, Section

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
MOST_ACTIVATIONS_GB = 18.0


class AutoscalingConfig(Section):
    """Replica bounds of one deployment, and how much work is enough for one more replica.

    Equal bounds mean a fixed number.
    """

    min_replicas: Count | Auto = "auto"
    """0: the deployment may go to nothing when there is no work. auto: with `max_replicas` auto as well, as many as the
    machine has room for; else 1."""
    max_replicas: PositiveInt | Auto = "auto"
    """Never more than this. auto: with `min_replicas` auto as well, as many as the machine has room for; else the least
    that is allowed."""
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
    def _bounds_in_order(cls, value: int | Auto, info: ValidationInfo) -> int | Auto:
        least = info.data.get("min_replicas", "auto")
        if value != "auto" and least != "auto" and value < least:
            raise ValueError(f"must be at least min_replicas, {least}")
        return value

    @property
    def open(self) -> bool:
        """Whether the number of replicas is left to the machine."""
        return self.min_replicas == self.max_replicas == "auto"

    @property
    def least(self) -> int:
        """Replicas that there always are."""
        return 1 if self.min_replicas == "auto" else self.min_replicas

    @property
    def most(self) -> int:
        """Replicas that there may be."""
        return max(self.least, 1) if self.max_replicas == "auto" else self.max_replicas

    @property
    def fixed(self) -> bool:
        """Whether the number of replicas never changes."""
        return self.least == self.most


class DeploymentConfig(Section):
    """Resources, concurrency and timeouts of one Ray Serve deployment."""

    num_cpus: float = Field(1.0, ge=0)
    """CPUs that a replica takes of its node, as Ray counts them."""
    num_gpus: Share | Auto = "auto"
    """Share of a GPU that each process takes; Ray shows it that GPU and no other. auto: by what else runs there."""
    accelerator_type: str = ""
    """Ray accelerator type, for example "H100". Empty: any node."""
    node_resource: str = Field("", pattern=r"^([A-Za-z][A-Za-z0-9_-]{0,62})?$")
    """Custom resource of Ray that a node must offer, for example "decoder": what `ray start --resources` gave a group
    of nodes. Empty: any node."""
    device: DeviceType | Auto = "auto"
    """What the replica computes on. auto: the GPUs that are found, if the model fits (`helios plan`). On a Ray cluster:
    a GPU where `num_gpus` asks for one, else the CPU."""
    autoscaling: AutoscalingConfig = AutoscalingConfig()
    max_ongoing_requests: PositiveInt = 1
    """Calls that a replica takes on at a time."""
    request_timeout_s: PositiveFloat = 600.0
    """The dispatcher gives up on a call after this long, waiting included, and repeats it. A replica whose device is at
    one call for longer counts as hung and is replaced. Must exceed the time that the first call of a size compiles."""
    start_timeout_s: PositiveFloat = 1800.0
    """A call waits this long while no replica runs: scaled to zero, or starting. Then the job is released. Neither
    counts as a loss."""
    graceful_shutdown_timeout_s: PositiveFloat = 30.0
    """Time that a replica has to end its calls before it is killed."""
    graceful_shutdown_wait_loop_s: PositiveFloat = 0.5
    """How often it looks whether they have ended."""
    health_check_period_s: PositiveFloat = 5.0
    """How often Serve asks a replica whether it is well."""
    health_check_timeout_s: PositiveFloat = 30.0
    """A replica that has not answered for so long is replaced."""
    torch_threads: int = Field(0, ge=0)
    """CPU threads torch uses in a replica; 0 leaves torch's default."""

    @model_validator(mode="after")
    def _device_and_share(self) -> Self:
        """Without a share Ray would hide no GPU, and every replica would land on the first."""
        if self.num_gpus == "auto":
            return self
        if self.device == "cuda" and not self.num_gpus:
            raise ValueError("num_gpus must be more than 0 and at most 1 with device cuda, is 0")
        if self.device == "cpu" and self.num_gpus:
            raise ValueError(
                f"num_gpus must be 0 with device cpu, is {self.num_gpus:g}; device must be cuda to use a GPU"
            )
        return self

    @property
    def gpu_share(self) -> float:
        """`num_gpus`, where nobody has made a plan: a whole GPU for what is to run on one."""
        return float(self.device == "cuda") if self.num_gpus == "auto" else self.num_gpus

    @property
    def runs_on(self) -> DeviceType:
        """`device`, where nobody has made a plan: a GPU if it is to have one."""
        if self.device != "auto":
            return self.device
        return "cuda" if self.gpu_share else "cpu"


class DispatcherConfig(DeploymentConfig):
    """The dispatcher: claims jobs and drives them. It computes nothing."""

    device: Literal["cpu"] = "cpu"
    """It needs no GPU."""
    num_cpus: float = Field(0.1, ge=0)
    """CPUs that a replica takes of its node, as Ray counts them."""
    concurrent_jobs: PositiveInt = 2
    """Jobs one dispatcher replica drives at a time."""
    interactive_jobs: int = Field(1, ge=0)
    """Interactive jobs that it drives besides: they start while all other slots are busy."""
    claim_poll_s: PositiveFloat = 1.0
    """Longest wait between looks at the queue when no notification arrives."""
    chunk_objective_s: float | None = Field(None, gt=0)
    """A chunk that was finished later than this after the one before it counts as missed in
    `helios_chunk_deadline_missed_total`. Unset: its play time, which is what real time takes."""
    publish_attempts: PositiveInt = 5
    """Tries to write a finished video to the artifact store before the job fails."""
    metrics_host: str = "127.0.0.1"
    """Address of the metrics."""
    metrics_port: Port = 9465
    """Prometheus metrics of all Ray processes over HTTP. A taken port is skipped for one of the next nine."""

    @field_validator("autoscaling")
    @classmethod
    def _fixed_number(cls, value: AutoscalingConfig) -> AutoscalingConfig:
        if not value.fixed:
            raise ValueError("min_replicas and max_replicas must be equal: dispatchers are what scales the others")
        return value

    @property
    def slots(self) -> int:
        """Jobs that all dispatchers together drive at a time."""
        return (self.concurrent_jobs + self.interactive_jobs) * self.autoscaling.most


class ParallelConfig(Section):
    """The devices that one denoiser replica spans.

    It has cfg_degree x ring_degree x ulysses_degree ranks, one device each.
    """

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
    """Calls that a replica takes on. It serves one at a time, the most urgent first. With several replicas 1 is the
    better value: a call then waits for whichever replica is free first."""
    prompt_cache_entries: PositiveInt = 4
    """Prompts whose cross-attention keys and values a replica keeps (420 MB each at full size)."""
    guidance_batching: GuidanceBatching = "auto"
    """Run the two passes of classifier-free guidance as one batch: auto does if the device's memory allows it."""
    offload_budget_gb: PositiveFloat | Auto | None = "auto"
    """Device memory for the DiT's blocks, GB (10^9 bytes); the others wait in host memory. Null: all on the device.
    auto: what there is room for, if not all fit."""
    compile: CompileMode | Auto = "auto"
    """On a GPU: off launches the fused kernels one by one, regional compiles the blocks instead, graphs records CUDA
    graphs of whole forwards. Compiled code is kept under the state folder. auto: off, until figures of a GPU say which
    is fastest."""
    fp8: bool = False
    """The DiT's large linear layers in 8-bit floating point: faster, at a loss of precision; from Ada and Hopper on."""
    attention: AttentionKernel = "auto"
    """The attention kernel on a GPU. auto: the fastest for each shape, by timing; two replicas may then differ in the
    last bits. With a named kernel, a job that resumes on another replica is the same to the bit."""
    parallel: ParallelConfig = ParallelConfig()

    @model_validator(mode="after")
    def _accelerations_go_together(self) -> "DenoiserConfig":
        if self.compile_mode != "off" and self.parallel.world_size > 1:
            raise ValueError(f"compile must be off with {self.parallel.world_size} ranks, is {self.compile}")
        if self.compile == "graphs" and self.device == "cpu":
            raise ValueError("compile must be off or regional on cpu, is graphs")
        if self.attention not in ("auto", "torch") and self.device == "cpu":
            raise ValueError(f"attention must be auto or torch on cpu, is {self.attention}")
        if self.offload_gb is not None and (self.fp8 or self.compile_mode != "off"):
            raise ValueError("offload_budget_gb must not be set with fp8 or compile")
        return self

    @model_validator(mode="after")
    def _resources_for_each_rank(self) -> "DenoiserConfig":
        ranks = self.parallel.world_size
        if ranks > 1 and self.device == "cuda" and self.num_gpus not in (1, "auto"):  # NCCL: one rank on a device
            raise ValueError(f"num_gpus must be 1 with {ranks} ranks on {self.device}, is {self.num_gpus}")
        if ranks > 1 and not self.num_cpus and not self.gpu_share:
            raise ValueError(f"num_cpus must not be 0 with {ranks} ranks on {self.device}: nothing to place them by")
        return self

    @property
    def compile_mode(self) -> CompileMode:
        """`compile`, where nobody has made a plan: off."""
        return "off" if self.compile == "auto" else self.compile

    @property
    def offload_gb(self) -> float | None:
        """`offload_budget_gb`, where nobody has made a plan: None."""
        return None if self.offload_budget_gb == "auto" else self.offload_budget_gb


class TextEncoderConfig(DeploymentConfig):
    """The UMT5 text encoder."""

    max_ongoing_requests: PositiveInt = 32
    """Prompts that a replica takes on; it encodes one at a time."""
    cache_entries: PositiveInt = 256
    """Prompts whose embeddings a replica keeps."""


class DecoderConfig(DeploymentConfig):
    """The VAE and the video encoder (H.264)."""

    max_ongoing_requests: int = Field(4, ge=3)
    """Calls that a replica takes on: two chunks, of which one is decoded while the other is encoded, and beyond these
    uploads that jobs start from."""
    activation_budget_gb: PositiveFloat | Auto | None = "auto"
    """Device memory, GB (10^9 bytes), for what the VAE's layers compute. Null: no bound. A chunk or upload that takes
    more goes through a few frames at a time. auto: what there is room for, at most 18: at 384x640 all frames fit into
    that, at 1280x768 four do."""
    vae_dtype: VAEDtypeName | Auto = "auto"
    """What chunks are decoded in; uploads are encoded in float32. auto: float32 where that fits, or float16."""
    crf: int = Field(18, ge=0, le=51)
    """Quality of the video: H.264's constant rate factor, 0 (lossless) to 51."""
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"] = "veryfast"
    """libx264's preset: slower ones make smaller files."""
    encoder_threads: PositiveInt = 2
    """CPU threads of the H.264 encoder."""

    @property
    def activation_gb(self) -> float | None:
        """`activation_budget_gb`, where nobody has made a plan: 18."""
        return MOST_ACTIVATIONS_GB if self.activation_budget_gb == "auto" else self.activation_budget_gb

    @property
    def decodes_in(self) -> VAEDtypeName:
        """`vae_dtype`, where nobody has made a plan: float32."""
        return "float32" if self.vae_dtype == "auto" else self.vae_dtype
