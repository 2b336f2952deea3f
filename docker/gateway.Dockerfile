# syntax=docker/dockerfile:1
# The gateway: Python, a gRPC and an HTTP server, about 250 MB. Build from the repository's root:
#   docker build -f docker/gateway.Dockerfile -t registry.example.com/helios/gateway:0.1.0 .
# Bases are pinned by tag so that this file can be read. A release pins what the tag meant, for repeatable builds:
#   --build-arg PYTHON=python:3.11.13-slim-bookworm@sha256:...
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
# Packages by the hashes of the locks (`make lock` renews them), and as wheels: no package's own code runs here.
COPY docker/build.lock docker/gateway.lock docker/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r docker/build.lock
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r docker/gateway.lock
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
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# numeric: Kubernetes can tell that it is not root
USER 1000:1000
EXPOSE 50051 8080 9464
ENTRYPOINT ["helios"]
CMD ["gateway"]
