"""One forward of the DiT over several devices: context parallelism (Ulysses, ring, both) and CFG parallelism.

Every rank runs the same program with the same arguments and gets the same result, bit for bit:

    init_ranks(rank=rank, world_size=4, init_method="tcp://10.0.0.1:29500", backend="nccl")     # ranks.py
    mesh = Mesh.build(ContextParallel(ulysses_degree=2, ring_degree=2))                         # degrees.py, mesh.py
    denoiser = Denoiser(ParallelTransformer(transformer, mesh), scheduler)                      # transformer.py

`sampling/drive.py` lets rank 0 lead: the others repeat each of its calls.
Import from the modules; this file imports nothing.

Sources: DeepSpeed-Ulysses (arXiv 2309.14509), Ring Attention (arXiv 2310.01889), USP (arXiv 2405.07719).
"""
