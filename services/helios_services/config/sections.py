"""Settings of the model, the job store, the gateway, uploads, webhooks and traces."""

from ipaddress import ip_network
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from helios_engine.errors import InvalidField
from helios_engine.options import Auto, DtypeName, VariantName
from helios_engine.request import check_size
from helios_engine.variants import VARIANTS
from helios_services.config.places import check_place
from helios_services.config.section import Port, PositiveFloat, PositiveInt, Section


class ModelConfig(Section):
    """The model this service runs and the limits of its jobs."""

    name: str = Field("helios-distilled", pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    """What jobs and metrics call the model."""
    variant: VariantName = "distilled"
    """What the checkpoint is; the gateway, which does not read it, checks requests by it."""
    checkpoint: str = ""
    """Folder in the published diffusers layout, or a Hub id (org/name, optionally @revision). Not for the gateway."""
    loras: dict[str, str] = Field({})
    """LoRA adapters that requests may name, and their files."""
    merged_loras: dict[str, float] = Field({})
    """LoRA adapter files that become part of the weights, and their scales."""
    dtype: DtypeName | Auto = "auto"
    """What the weights of DiT and text encoder are kept in. auto: bfloat16 if the denoiser is on a GPU, or float32."""
    max_frames: PositiveInt = 14_520
    """Most frames that a job may ask for."""
    max_pixels: PositiveInt = 1280 * 768
    """Most pixels in a frame that a job may ask for."""
    max_steps: PositiveInt = 200
    """Denoising steps of a chunk that a request may ask for, those of all pyramid stages together."""
    warm_up_sizes: tuple[tuple[int, int], ...] = ((384, 640),)
    """Height and width of videos that replicas get ready for before their first job, where something is compiled or
    timed; those that max_pixels allows. A size that is not here makes its first job wait, and the jobs behind it."""

    @model_validator(mode="after")
    def _sizes_that_requests_may_have(self) -> "ModelConfig":
        if "warm_up_sizes" not in self.model_fields_set:
            return self
        known = [self.variant] if "variant" in self.model_fields_set else list(VARIANTS)
        multiple = min(VARIANTS[variant].size_multiple for variant in known)  # until the checkpoint says what it is
        for height, width in self.warm_up_sizes:
            for name, value in (("height", height), ("width", width)):
                try:
                    check_size(name, value, multiple)
                except InvalidField as error:
                    raise ValueError(f"warm_up_sizes: {error}") from None
            if height * width > self.max_pixels:
                raise ValueError(f"warm_up_sizes: {height}x{width} must have at most max_pixels, {self.max_pixels:,}")
        return self

    @property
    def warm_ups(self) -> list[tuple[int, int]]:
        """The warm-up sizes that requests may have."""
        return [(height, width) for height, width in self.warm_up_sizes if height * width <= self.max_pixels]


class RedisConfig(Section):
    """Where jobs are kept."""

    url: str = ""
    """redis://, rediss:// (TLS) or unix:// (a socket's path) URL. Empty: the embedded server under the state folder."""
    username: str = ""
    """ACL user of `password_file`'s password; empty: Redis' default user."""
    password_file: str = ""
    """File that holds the password and nothing else; read again for each connection. Keeps it out of the URL."""
    tls_ca_file: str = ""
    """PEM authorities of the server's certificate; empty: the system's."""
    tls_certificate_file: str = ""
    """PEM certificate chain of this client, with `tls_key_file`, for mutual TLS."""
    tls_key_file: str = ""
    """PEM key of `tls_certificate_file`."""
    cluster: bool = False
    """The URL is that of a node of a Redis Cluster, which names the others."""
    namespace: str = Field("default", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """Part of every key: services with different namespaces share a server without seeing each other."""
    socket_timeout_s: PositiveFloat = 5.0
    """An answer that takes longer counts as no answer."""


class JobsConfig(Section):
    """Queue bounds, leases and retention."""

    max_queued: PositiveInt = 1000
    """Jobs that may wait, for each model. Beyond that submissions are refused, but for accounts that have less than a
    tenth of so many waiting; for these, at twice as many: so no account can fill the queue for all."""
    max_attempts: PositiveInt = 5
    """Lost workers or replicas in a row, without a finished chunk, after which a job fails."""
    fair_quantum_chunks: PositiveFloat = 4.0
    """A job gives way to one of equal priority whose account has had less by the work of so many chunks of the default
    size and steps, over its weight."""
    lease_s: PositiveFloat = 15.0
    """A worker that has not renewed its lease for so long has lost the job."""
    heartbeat_s: PositiveFloat = 5.0
    """How often leases are renewed."""
    job_ttl_s: PositiveFloat = 7 * 86400.0
    """How long the record of an ended job is kept."""
    chunk_ttl_s: PositiveFloat = 3600.0
    """How long the chunks of an ended job can be streamed, and how long it can be continued."""
    live_window_chunks: PositiveInt = 64
    """Chunks of an open-ended job that are kept, older ones are dropped; a live session waits for its reader, so many
    chunks ahead of it."""
    live_lead_chunks: PositiveInt = 3
    """Chunks that a live session is made and sent ahead of what its viewer has played, where its client says what that
    is. With fewer of them prompts are seen sooner, and a short delay stalls the picture sooner."""
    max_prompt_updates: PositiveInt = 1000
    """Times that a job's prompt can be changed while it runs."""
    max_prompt_update_bytes: int = Field(256 * 1024, gt=0, le=1024**2)
    """What all of these changes of a job may take in the store."""
    max_job_bytes: int = Field(64 * 1024, gt=0, le=1024**2)
    """What a request may take in the store, all its prompts and labels included."""
    max_account_bytes: PositiveInt = 128 * 1024**2
    """What the records of an account's jobs may take in the store, besides what its jobs have made. Records of ended
    jobs go early to make room for new ones, the oldest end first."""
    max_account_output_bytes: PositiveInt = 4 * 1024**3
    """What an account's jobs have made and the store still has: chunks, saved states, embeddings. What ended jobs have
    made goes early to make room, the first to expire first; dead letters keep theirs. Beyond it submissions are
    refused, and a job that makes more fails."""
    session_grace_s: PositiveFloat = 30.0
    """How long a live session goes on without its client."""
    pause_limit_s: PositiveFloat = 600.0
    """How long a job can be paused before it is stopped."""

    @field_validator("max_account_bytes")
    @classmethod
    def _room_for_a_job(cls, value: int, info: ValidationInfo) -> int:
        least = 4 * info.data.get("max_job_bytes", 0)
        if value < least:
            raise ValueError(f"must be at least four times max_job_bytes, {least}")
        return value

    @field_validator("heartbeat_s")
    @classmethod
    def _two_heartbeats_a_lease(cls, value: float, info: ValidationInfo) -> float:
        lease_s = info.data.get("lease_s", value * 2)
        if value * 2 > lease_s:
            raise ValueError(f"must be at most half of lease_s, {lease_s / 2}")
        return value


Origin = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$")]


class GatewayConfig(Section):
    """The gateway: its gRPC and HTTP doors."""

    host: str = "127.0.0.1"
    """Address to listen on. The default is reached from this machine only."""
    port: Port = 50051
    """Port of the gRPC API. 0: the system chooses; the gateway prints which."""
    http_port: Port | None = 8080
    """Port of the HTTP API on `host`; keys, limits and certificate are gRPC's. 0: the system chooses; null: no HTTP."""
    cors_origins: tuple[Origin, ...] = ()
    """Origins whose pages may call the HTTP API from a browser, for example https://app.example.com. Empty: only the
    gateway's own."""
    metrics_host: str = "127.0.0.1"
    """Address of the metrics."""
    metrics_port: Port = 9464
    """Prometheus metrics over HTTP. 0: the system chooses."""
    health_port: Port | None = None
    """Health without TLS and apart from the API, on `host`: for probes that speak no TLS. Unset: none."""
    max_message_bytes: PositiveInt = 1024 * 1024 + 64 * 1024
    """Larger messages are refused. An upload comes in parts, of which clients send 1 MiB at most; everything else is
    smaller. Calls in progress may each hold as much, of a message that never becomes whole."""
    max_concurrent_rpcs: PositiveInt = 2000
    """Calls in progress at a time, of all callers."""
    max_concurrent_rpcs_per_key: PositiveInt = 1200
    """Calls in progress of one API key. More than autoscaling aims at: it would not see a single busy key otherwise."""
    max_downloads: PositiveInt = 64
    """Downloads of finished videos in progress at a time, of all callers."""
    max_downloads_per_key: PositiveInt = 16
    """Downloads in progress of one API key."""
    drain_s: PositiveFloat = 20.0
    """Time that calls in progress have to end after SIGTERM."""
    reflection: bool = True
    """Whether clients may ask for the API's definition."""
    api_keys_file: str = ""
    """YAML file of API keys (`helios keys new` makes entries). Empty: no key is asked for; on loopback, only the
    gateway's own user may call then, and root."""
    token_secrets_file: str = ""
    """File of the secrets that sign tokens for browsers, one a line: the first signs, all are good. Read again when it
    changes. Empty: no tokens; `helios up` makes one under its state folder, where keys are asked for."""
    trust_local_users: bool = False
    """Without keys, take calls on loopback from every user of this machine: a proxy with a user of its own, say."""
    tls_certificate_file: str = ""
    """PEM certificate chain; with `tls_key_file` turns TLS on. Both are read again when they change."""
    tls_key_file: str = ""
    """PEM key of `tls_certificate_file`."""
    tls_client_ca_file: str = ""
    """PEM authorities of client certificates, which are then required (mutual TLS)."""


class MediaConfig(Section):
    """Limits of the pictures and clips that users send, and of the process that decodes one."""

    max_bytes: PositiveInt = 64 * 1024 * 1024
    """Bytes of an uploaded file."""
    max_pixels: PositiveInt = 4096 * 4096
    """Pixels of a frame as it is in the file."""
    max_frames: PositiveInt = 7200
    """Frames of a clip as it is in the file."""
    max_duration_s: PositiveFloat = 300.0
    """Seconds that a clip may last."""
    decode_timeout_s: PositiveFloat = 60.0
    """Seconds from the start of the decoding process to its last byte."""
    cpu_s: PositiveInt = 45
    """Processor time of the decoding process."""
    ttl_s: PositiveFloat = 86400.0
    """How long an upload is kept; longer once a job was given it."""
    max_files: PositiveInt = 1000
    """Uploads that are kept at a time, of all accounts together."""
    max_files_per_account: PositiveInt = 100
    """Uploads of one account that are kept at a time, unless a key's `max_uploads` says otherwise."""
    max_bytes_per_account: PositiveInt = 2 * 1024**3
    """Bytes of one account's uploads, unless a key's `max_upload_bytes` says otherwise."""
    max_arriving_per_key: PositiveInt = 8
    """Uploads of one API key that arrive at a gateway at a time."""
    max_arriving_bytes: PositiveInt = 4 * 1024**3
    """Bytes of all uploads that arrive at a gateway at a time: room that its temporary folder must have. An upload
    without a size counts as the largest."""
    max_arriving_bytes_per_tenant: PositiveInt = 1024**3
    """Bytes of one tenant's uploads that arrive at a time."""
    memory_bytes: int = Field(2 * 1024**3, ge=512 * 1024**2)
    """Address space of the decoding process: the file, the decoder's frames and the result must fit."""
    require_seccomp: bool = True
    """Decode nothing, and do not start, where the kernel takes no filter of system calls. Unset, `helios up` and
    `helios generate` warn and go on."""


TenantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class WebhookPlaces(Section):
    """Where the webhooks of one tenant may go, and who they say they are from."""

    urls: tuple[str, ...] = ()
    """URLs that a job's webhook_url must equal or lie below. Empty: nowhere."""
    secret_file: str = ""
    """File of the secrets that sign them, one a line (whsec_ and base64); all sign, so that one can take over."""

    @model_validator(mode="after")
    def _places_and_secret(self) -> "WebhookPlaces":
        for url in self.urls:
            try:
                check_place(url)
            except ValueError as error:
                raise ValueError(f"urls: {url!r} {error}") from None
        if self.urls and not self.secret_file:
            raise ValueError("secret_file must be set where there are urls")
        return self


class WebhooksConfig(WebhookPlaces):
    """HTTP calls that tell clients of ended jobs. `urls` and `secret_file` are for a service without API keys."""

    tenants: dict[TenantName, WebhookPlaces] = Field({})
    """Where API keys are asked for: urls and secret_file of each tenant that has webhooks. A secret file must be one
    tenant's only."""
    internal_networks: tuple[str, ...] = ()
    """Networks (192.0.2.0/24, 2001:db8::/32) that webhooks may go to although they are none of the internet: this
    machine's, private, link-local ones. What a URL's name leads to is looked at for each connection."""
    timeout_s: PositiveFloat = 10.0
    """A call that takes longer has failed."""
    max_tries: PositiveInt = 12
    """Calls in all, before one is given up."""
    first_wait_s: PositiveFloat = 5.0
    """Before the second try; the waits double, up to `longest_wait_s`."""
    longest_wait_s: PositiveFloat = 3600.0
    """Between two tries."""

    @field_validator("internal_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)  # a ValueError says what is wrong
        return value

    @model_validator(mode="after")
    def _secrets_of_their_own(self) -> "WebhooksConfig":
        files = [places.secret_file for places in self.tenants.values() if places.secret_file]
        if len(set(files)) < len(files):
            raise ValueError("tenants: two have the same secret_file, so that each could sign as the other")
        return self

    def of(self, tenant: str) -> WebhookPlaces:
        """What a tenant may have; the nameless one is everybody, where no API keys are asked for."""
        return self.tenants.get(tenant, WebhookPlaces()) if tenant else self


class TracingConfig(Section):
    """OpenTelemetry traces."""

    otlp_endpoint: str = ""
    """OTLP/gRPC collector, for example http://otel-collector:4317. Empty: no traces."""
    sample_ratio: float = Field(1.0, ge=0, le=1)
    """Share of the traces that are recorded where the caller has not decided."""
    export_delay_s: PositiveFloat = 5.0
    """Longest time that a finished span waits for others to be sent with."""
