# syntax=docker/dockerfile:1
# Weights as an image for k8s/components/weights-image-volume: nothing in it runs. Fill a folder, MODELS, with a commit of the
# Hub, then build from it; weights.Dockerfile.dockerignore leaves out what the engine does not read:
#   REPO=BestWishYSH/Helios-Distilled REVISION=COMMIT REQUIRE_COMMIT=true TARGET=./MODELS/Helios-Distilled \
#     sh k8s/base/weights/fetch.sh
#   docker build -f docker/weights.Dockerfile -t registry.example.com/helios/weights:distilled-1 ./MODELS
FROM scratch
# named, so that no image is built of weights without sums; fetch.sh writes them
COPY Helios-Distilled/SHA256SUMS /Helios-Distilled/SHA256SUMS
COPY Helios-Distilled /Helios-Distilled
