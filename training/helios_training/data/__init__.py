"""What training reads: metadata, latents, and batches out of them."""
