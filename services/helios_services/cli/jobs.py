"""`helios jobs`: look at a gateway's jobs."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToJson
from rich.console import Console
from rich.table import Table

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_services.cli.connect import connect
from helios_services.cli.output import written
from helios_services.cli.remote import download

app = typer.Typer(no_args_is_help=True, help="List, inspect, cancel and watch jobs; queue dead letters again.")
Server = Annotated[str, typer.Option(envvar="HELIOS_SERVER", help="HOST:PORT of the gateway.")]
JobId = Annotated[str, typer.Argument(help="Job id.")]
JobIds = Annotated[list[str], typer.Argument(help="Job ids.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one job a line.")]
DEFAULT_SERVER = "localhost:50051"
STATES = tuple(name.removeprefix("JOB_STATE_").lower() for name in pb.JobState.keys()[1:])


@app.command("ls")
def list_jobs(
    server: Server = DEFAULT_SERVER,
    state: Annotated[list[str] | None, typer.Option(help="Only these states; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(help="Most jobs shown.", min=1)] = 50,
    dead_letters: Annotated[bool, typer.Option("--dead-letters", help="Only jobs that can be queued again.")] = False,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    states = tuple(state or ())
    for name in states:
        if name.lower() not in STATES:
            raise InvalidField("state", name, ", ".join(STATES))
    with connect(server) as client:
        jobs = list(islice(client.list(states=states, dead_letters=dead_letters), limit))
    _show(jobs, as_json)


@app.command("get")
def get_job(job_id: JobId, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Show one job."""
    with connect(server) as client:
        _show([client.get(job_id)], as_json)


@app.command("cancel")
def cancel_job(job_id: JobId, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Cancel a job."""
    with connect(server) as client:
        _show([client.cancel(job_id)], as_json)


@app.command("requeue")
def requeue_jobs(job_ids: JobIds, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Queue dead letters again; each goes on after its last chunk. Needs an API key with the scope admin."""
    with connect(server) as client:
        _show([client.requeue(job_id) for job_id in job_ids], as_json)


@app.command("purge")
def purge_jobs(job_ids: JobIds, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Give up dead letters: they stay failed, and what another try would need is dropped. Needs the scope admin."""
    with connect(server) as client:
        _show([client.purge(job_id) for job_id in job_ids], as_json)


@app.command("watch")
def watch_job(job_id: JobId, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Print a line at each change, until the job has ended."""
    with connect(server) as client:
        for job in client.watch(job_id):
            if as_json:
                _show([job], as_json)
            else:
                print(f"{job.id}  {_state(job)}  {job.chunks_done}/{job.chunks_total}", flush=True)


@app.command("download")
def download_video(
    job_id: JobId,
    server: Server = DEFAULT_SERVER,
    output: Annotated[Path, typer.Option("--output", "-o", help="MP4 file to write.")] = Path("out.mp4"),
) -> None:
    """Write the video of a job that has succeeded."""
    with written(output) as file, connect(server) as client:
        size = download(client, job_id, file, output)
    print(f"wrote {output} ({size:,} bytes)")


def _show(jobs: list[pb.Job], as_json: bool) -> None:
    if as_json:
        for job in jobs:
            print(MessageToJson(job, indent=None, preserving_proto_field_name=True), flush=True)
        return
    head = ("id", "state", "priority", "chunks", "attempts", "created", "error")
    rows = [
        (
            job.id,
            _state(job),
            pb.Priority.Name(job.priority).removeprefix("PRIORITY_").lower(),
            f"{job.chunks_done}/{job.chunks_total}",
            str(job.attempts),
            job.create_time.ToDatetime().isoformat(" ", "seconds"),
            f"{job.error.reason}: {job.error.message}" if job.HasField("error") else "",
        )
        for job in jobs
    ]
    console = Console()
    if console.is_terminal:
        table = Table(*head)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:  # for other programs: nothing is cut, columns are separated by tabs
        for line in (head, *rows):
            print("\t".join(" ".join(cell.split()) for cell in line))


def _state(job: pb.Job) -> str:
    return pb.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
