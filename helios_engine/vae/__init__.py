"""The Wan VAE: latents to frames and back, in temporal slices where memory is short."""
