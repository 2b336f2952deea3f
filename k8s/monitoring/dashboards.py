"""The dashboards. Store-wide values, the same from every gateway, are aggregated with max; all others with sum."""

from typing import Any

from k8s.monitoring.boards import latency, overview, queue, ray, redis
from k8s.monitoring.panels import dashboard

BOARDS = {
    "helios-overview": ("Helios: service", overview),
    "helios-latency": ("Helios: chunks", latency),
    "helios-queue": ("Helios: queue", queue),
    "helios-ray": ("Helios: GPUs and Ray", ray),
    "helios-redis": ("Helios: Redis", redis),
}


def dashboards() -> dict[str, dict[str, Any]]:
    """All dashboards, by uid, which is also the file's name."""
    return {uid: dashboard(uid, title, board.__doc__ or "", board.PANELS) for uid, (title, board) in BOARDS.items()}
