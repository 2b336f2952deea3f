#!/bin/sh
# Downloads a checkpoint into TARGET. TARGET appears whole and checked or not at all; a second run finds it and ends.
set -eu
if [ -e "$TARGET" ]; then
    echo "weights: $TARGET is there"
    exit 0
fi
partial="$TARGET.partial"
hf download "$REPO" --revision "$REVISION" --local-dir "$partial"
helios check "$partial"
rm -rf "$partial/.cache"
mv "$partial" "$TARGET"
echo "weights: wrote $TARGET"
