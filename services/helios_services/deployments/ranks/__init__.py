"""A denoiser replica that spans several devices, one process for each."""
