# syntax=docker/dockerfile:1
# Everything that runs under Ray, and the weights Job. Build from the repository's root:
#   docker build -f docker/worker.Dockerfile -t registry.example.com/helios/worker:0.1.0 .
# Bases are pinned by tag so that this file can be read. A release pins what the tag meant, for repeatable builds:
#   --build-arg CUDA=nvidia/cuda:13.0.2-base-ubuntu24.04@sha256:...
# `base` is enough: torch's wheels bring cuDNN, cuBLAS and NCCL; the driver (580 or newer) is the node's.
ARG CUDA=nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${CUDA} AS build
# build tools stay in this stage; versions are those of the pinned base's archive
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# The CUDA build that matches the base, before the project, which accepts any build of that version (constraints.txt
# pins the CPU build of the tests and is left out). A layer of its own: 3 GB that change rarely.
ARG TORCH=2.13.0
ARG TORCH_CUDA=cu130
RUN pip install --no-cache-dir "torch==${TORCH}" --index-url "https://download.pytorch.org/whl/${TORCH_CUDA}"
# The Ray version of k8s/base/ray/rayservice.yaml; `default` brings the dashboard, which KubeRay deploys through.
ARG RAY=2.60.0
RUN pip install --no-cache-dir "ray[serve,default]==${RAY}"
WORKDIR /src
COPY pyproject.toml setup.py README.md ./
COPY protos protos
COPY helios_engine helios_engine
COPY kernels kernels
COPY services services
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[serve,s3]'

FROM ${CUDA}
# bash: KubeRay starts Ray through it (in the base).
# A compiler where it runs: at its first launch on a GPU Triton compiles the module that loads kernels, against Python.h,
# and so do torch.compile's kernels (g++ is for what of a compiled graph stays on the CPU). Without it no kernel launches.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ gcc libc6-dev python3 python3-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# numeric: Kubernetes can tell that it is not root
USER 1000:1000
CMD ["helios", "worker"]
