"""Fused GPU kernels of the Helios engine, for inference (no gradients).

One module per kernel: its formula, the Triton launcher (`*_triton`), the same in plain torch (`*_ref`) and the function
to call, which takes the launcher for CUDA tensors and the reference elsewhere. `HELIOS_KERNELS=reference` in the
environment forces the reference everywhere; `triton` forces the launchers, for Triton's interpreter. Arithmetic is
float32 inside, rounded once to the output's dtype. Importing works without Triton; then there are only the references.

    modulated_norm   modulated_norm, affine_norm
    gated_residual   add_gated_affine_norm, add_noisy_modulated_norm, add_gated_modulated_norm
    norm_rotate      norm_rotate, norm_rotate_qkv
    rms_norm         rms_norm
    channel_norm     channel_norm
    renoise          renoise
    upsample         upsample_renoise
    rgb              rgb_frames
    yuv420           yuv420_frames
"""
