"""The Serve autoscaling policy: what the board says, through the formula, held for the downscale delay.

Serve applies the bounds, the upscale delay, and its own start from zero: a call that waits for a deployment without a
replica starts one, so that even a stale board strands no job. Its downscale delay is set to 0: it would go down to what
is wanted when the delay ends, though twice as much was wanted a second before. `Hold` keeps the most that was wanted.

Serve pickles this module by value and makes one instance per deployment in the controller; everything that it imports
must be importable there.
"""

import time
from functools import partial
from typing import Any

from ray.serve.config import AutoscalingContext

from helios_services.deployments.autoscaling.board import BoardReader, fetch
from helios_services.deployments.autoscaling.need import Need, Scaler


class WorkPolicy:
    """Called by the controller some ten times a second; never blocks."""

    def __init__(self, *, downscale_delay_s: float, **need: Any) -> None:
        self._scaler = Scaler(Need(**need), downscale_delay_s)
        self._reader: BoardReader | None = None

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Replicas wanted, and no state: Serve keeps that no longer than this object."""
        if self._reader is None:
            self._reader = BoardReader(partial(fetch, context.app_name or ""))
        work, target = self._reader.latest(), context.target_num_replicas
        return self._scaler(time.monotonic(), work, target=target, recent_calls=context.total_num_requests), {}
