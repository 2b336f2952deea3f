#!/bin/sh
# Waits until the checkpoint is there, then validates it from its headers (seconds, not the 28 GB). A bad one ends the
# pod with the reason in its log.
set -eu
until [ -d "$1" ]; do
    echo "weights: waiting for $1"
    sleep 5
done
exec helios check "$1"
