"""The diffusion transformer (DiT): attention, block, rotary positions, and the model that is made of them."""
