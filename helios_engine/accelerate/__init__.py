"""What may make a GPU faster without changing the model: compiling, CUDA graphs, 8-bit products."""
