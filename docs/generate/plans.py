"""The page of plans: what `helios plan` prints for the published model on some machines."""

from collections.abc import Iterator

from benchmarks.published import needs_of
from benchmarks.sizes import SIZES
from helios_engine.planning.machine import GB, described
from helios_engine.planning.needs import Needs
from helios_services.config import ConfigError, ServiceConfig
from helios_services.planning.plan import PARTS, plan
from helios_services.planning.table import notes, row

MACHINES = (
    ("Eight cards of 80 GB", "8x80", 1000),
    ("Two cards of 80 GB", "2x80", 256),
    ("One card of 80 GB", "1x80", 128),
    ("One card of 48 GB", "1x48", 64),
    ("One card of 24 GB", "1x24", 64),
    ("One card of 8 GB", "1x8", 64),
    ("No GPU", "0", 128),
)
"""Title, GPUs and host memory (GB)."""
HEAD = """# Plans

What `helios up` does with Helios-Distilled on some machines, as `helios plan` prints it. Sizes are counted from the
model; contexts and workspaces are allowances, and none of it has been measured on a GPU yet. What is set in the
configuration stays: a plan fills in what is `auto`. See [a machine with GPUs](../howto/gpus.md).

"""


def page() -> str:
    """Markdown: a heading and a table for each machine."""
    needs = needs_of(SIZES["gpu-full"])
    return HEAD + "".join(part for machine in MACHINES for part in _machine(needs, *machine))


def _machine(needs: Needs, title: str, gpus: str, host_gb: int) -> Iterator[str]:
    yield f"## {title}\n\n```sh\nhelios plan /models/Helios-Distilled --gpus {gpus} --memory {host_gb}\n```\n\n"
    try:
        found = plan(ServiceConfig(), needs, described(gpus, host_gb * GB, cores=16))
    except ConfigError as error:
        yield f"Refused: {error}\n\n"
        return
    yield "| part | replicas | runs on | holds | why |\n|---|---|---|---|---|\n"
    yield from (f"| {' | '.join(row(found, section))} |\n" for section in PARTS)
    yield "\n" + "".join(f"- {note}\n" for note in notes(found)) + "\n"
