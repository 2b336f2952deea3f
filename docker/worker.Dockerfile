# syntax=docker/dockerfile:1
# Everything that runs under Ray, and the weights Job. Build from the repository's root:
#   docker build -f docker/worker.Dockerfile -t registry.example.com/helios/worker:0.1.0 .
# Bases are pinned by tag so that this file can be read. A release pins what the tag meant, for repeatable builds:
#   --build-arg PYTHON=python:3.11.13-slim-bookworm@sha256:...
# No CUDA in the base: torch's packages bring cuDNN, cuBLAS and NCCL; the driver (580 or newer) is the node's.
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
# Packages by the hashes of the locks (`make lock` renews them), and as wheels: no package's own code runs here.
# A layer of its own: 3 GB that change rarely.
COPY docker/build.lock docker/worker.lock docker/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r docker/build.lock
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r docker/worker.lock
COPY pyproject.toml setup.py README.md ./
COPY protos protos
COPY helios_engine helios_engine
COPY kernels kernels
COPY services services
COPY web web
# protoc finds its plugins by PATH
RUN PATH=/opt/build/bin:$PATH pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/venv/bin/pip install --no-cache-dir --no-index --no-deps /wheels/*.whl

FROM ${PYTHON}
# bash: KubeRay starts Ray through it (in the base).
# A compiler where it runs: at its first launch on a GPU Triton compiles the module that loads kernels, against Python.h
# (in the base), and so do torch.compile's kernels (g++ is for what of a compiled graph stays on the CPU). Without it no
# kernel launches. Versions are those of the pinned base's archive.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/venv /opt/venv
# What the container runtime mounts of the driver. Which GPUs is not said here: the device plugin says it, to pods that ask.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# numeric: Kubernetes can tell that it is not root
USER 1000:1000
CMD ["helios", "worker"]
