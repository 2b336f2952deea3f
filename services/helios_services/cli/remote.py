"""`helios generate --server`: submits to a gateway and shows chunks as they arrive."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from helios.v1 import video_generation_pb2 as pb
from helios_services.cli.connect import connect
from helios_services.cli.errors import UserError
from helios_services.cli.output import unwritable, written
from helios_services.cli.progress import chunk_progress, stages_of
from helios_services.client import HeliosClient, HeliosError

INTERRUPTED = 130


def generate_remotely(
    prompt: str,
    fields: Mapping[str, Any],
    output: Path,
    server: str,
    *,
    priority: str = "normal",
    image: Path | None = None,
    video: Path | None = None,
    continue_from: str = "",
) -> None:
    """Submits, shows progress and downloads the finished file.

    fields: of GenerationRequest, where they are not the server's defaults. Raises HeliosError when a call fails,
    UserError when a file cannot be read or written, or the job has failed.
    """
    params = dict(fields)
    if "prompt_schedule" in params:
        params["prompt_schedule"] = [pb.ScheduledPrompt(**asdict(entry)) for entry in params["prompt_schedule"]]
    if "loras" in params:
        params["loras"] = [pb.LoraWeight(**asdict(entry)) for entry in params["loras"]]
    with written(output) as part, connect(server) as client:
        for name, file in (("image_id", image), ("video_id", video)):
            if file is not None:
                params[name] = client.upload(_existing(file)).id
        job = client.submit(prompt, priority=priority, continue_from=continue_from, **params)
        print(f"job {job.id}", file=sys.stderr)
        try:
            with chunk_progress(job.chunks_total) as progress:
                for segment in client.stream(job.id):
                    if segment.info is not None:
                        progress.chunk(
                            num_frames=segment.info.num_frames,
                            duration_s=segment.info.duration.ToMicroseconds() / 1e6,
                            stage_s=stages_of(segment.info),
                        )
            *_, ended = client.watch(job.id)
            if ended.HasField("error"):
                raise UserError(f"job {job.id} failed: {ended.error.reason}: {ended.error.message}")
            size = download(client, job.id, part, output)
        except KeyboardInterrupt:
            _leave(client, job.id, server)
    progress.summary()
    print(f"wrote {output} ({size:,} bytes, job {job.id})")


def download(client: HeliosClient, job_id: str, file: Path, output: Path) -> int:
    """Writes a job's video to `file`, which is `output` when it is whole; its size in bytes.

    Raises HeliosError when the call fails, UserError when the file cannot be written.
    """
    try:
        return client.download(job_id, file)
    except OSError as error:
        raise UserError(f"{unwritable(output, error)}; the server keeps it: helios jobs download {job_id}") from None


def _leave(client: HeliosClient, job_id: str, server: str) -> NoReturn:
    """Whoever ends the command wants no video any more. Exits with status 130, as interrupted commands do."""
    try:
        client.cancel(job_id)
        print(f"helios: job {job_id} is cancelled", file=sys.stderr)
    except (HeliosError, KeyboardInterrupt):
        how = f"helios jobs cancel {job_id} --server {server}"
        print(f"helios: job {job_id} may go on; this cancels it: {how}", file=sys.stderr)
    sys.exit(INTERRUPTED)


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise UserError(f"{file}: is not a file")
    return file
