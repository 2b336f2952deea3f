"""Where a chunk's time goes, and whether it keeps up with play."""

from k8s.monitoring.panels import Panel, one, quantiles, rate

STAGE = "helios_chunk_stage_seconds"
WORK = '{stage=~"denoise|decode|encode"}'

PANELS = [
    Panel(
        "Real-time factor",
        "short",
        "Play time of a chunk over the time it took, of each dispatcher's last chunk; below 1 a viewer waits.",
        one("avg(helios_realtime_factor)", "mean of dispatchers"),
        limit=1,
    ),
    Panel(
        "Frame rate",
        "fps",
        "Frames per second of each dispatcher's last chunk.",
        one("avg(helios_fps)", "mean of dispatchers"),
    ),
    Panel(
        "Chunks past their deadline",
        "percentunit",
        "Chunks that took longer than they play. Objective: at most 5%.",
        one(f"sum({rate('helios_chunk_deadline_missed_total')}) / sum({rate('helios_chunk_seconds_count')})", "missed"),
        limit=0.05,
    ),
    Panel("Time per chunk", "s", "Between two finished chunks of a job.", quantiles("helios_chunk_seconds")),
    Panel(
        "Mean time by stage",
        "s",
        "Mean seconds per chunk in each stage; queue and text count once per attempt.",
        one(f"sum by (stage) ({rate(f'{STAGE}_sum')}) / sum by (stage) ({rate(f'{STAGE}_count')})", "{{stage}}"),
    ),
    Panel("Denoise", "s", "Seconds per chunk in the denoiser.", quantiles(STAGE, matchers='stage="denoise"')),
    Panel(
        "Frames per second by stage",
        "fps",
        "33 frames over a stage's mean time: the rate this stage alone would allow. The lowest is the bottleneck.",
        one(
            f"33 * sum by (stage) ({rate(f'{STAGE}_count{WORK}')}) / sum by (stage) ({rate(f'{STAGE}_sum{WORK}')})",
            "{{stage}}",
        ),
    ),
    Panel("Decode", "s", "Seconds per chunk in the VAE decoder.", quantiles(STAGE, matchers='stage="decode"')),
    Panel(
        "Deliver",
        "s",
        "From a chunk being ready to a live client having it.",
        quantiles(STAGE, matchers='stage="deliver"'),
    ),
]
