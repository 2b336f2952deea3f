# syntax=docker/dockerfile:1
# Weights as an image for k8s/components/weights-image-volume: nothing in it runs. Build from the folder above the weights:
#   docker build -f docker/weights.Dockerfile -t registry.example.com/helios/weights:distilled-1 MODELS_FOLDER
FROM scratch
COPY Helios-Distilled /Helios-Distilled
