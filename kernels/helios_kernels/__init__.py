"""Fused kernels of the Helios engine, each with its reference in plain torch.

One module per kernel: its formula, the Triton launcher (`*_triton`), the reference (`*_ref`) and the function to call.
That function takes the launcher for CUDA tensors, and the reference elsewhere and wherever a gradient is needed.
References are differentiable; launchers are not, and raise RuntimeError rather than lose a gradient.
`HELIOS_KERNELS=reference` in the environment forces the references everywhere; `triton` forces the launchers, for
Triton's interpreter. Arithmetic is float32 inside, rounded once to the output's dtype. Importing works without Triton;
then there are only the references.

    modulated_norm   modulated_norm, affine_norm
    gated_residual   add_gated_affine_norm, add_noisy_modulated_norm, add_gated_modulated_norm
    norm_rotate      norm_rotate
    rms_norm         rms_norm
    channel_norm     channel_norm
    renoise          renoise
    upsample         upsample_renoise
    rgb              rgb_frames
    yuv420           yuv420_frames
"""
