"""From noise to latents: schedules, solvers, guidance, and the denoiser that makes one chunk after another."""
