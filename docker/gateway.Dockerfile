# syntax=docker/dockerfile:1
# The gateway: Python and a gRPC server, about 250 MB. Build from the repository's root:
#   docker build -f docker/gateway.Dockerfile -t registry.example.com/helios/gateway:0.1.0 .
# Bases are pinned by tag so that this file can be read. A release pins what the tag meant, for repeatable builds:
#   --build-arg PYTHON=python:3.11.13-slim-bookworm@sha256:...
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
COPY pyproject.toml setup.py README.md ./
COPY protos protos
COPY helios_engine helios_engine
COPY kernels kernels
COPY services services
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[gateway,s3]'

FROM ${PYTHON}
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# numeric: Kubernetes can tell that it is not root
USER 1000:1000
EXPOSE 50051 9464
ENTRYPOINT ["helios"]
CMD ["gateway"]
