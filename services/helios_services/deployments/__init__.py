"""The Ray Serve application: dispatcher, text encoder, denoiser, VAE decoder."""
