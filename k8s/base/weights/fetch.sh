#!/bin/sh
# Downloads what the engine reads of a checkpoint, at REVISION, into TARGET and holds it against SHA-256 sums. TARGET appears
# whole and checked or not at all; a second run finds it and checks it again.
#
# The sums are the file SHA256SUMS beside this script, where somebody put one. Else they are those of the first download of
# this revision: kept beside TARGET, and trusted, for there is nothing to hold that download against.
set -euf

stop() {
    echo "weights: $*" >&2
    exit 1
}

# Holds a folder against $sums: every file by its sum, nothing that is loaded beside them, and sound as a checkpoint.
check() {
    cp "$sums" "$1/SHA256SUMS"
    said="$(helios check --sha256 "$1")"
    echo "$said"
    case "$said" in
        *" is not listed"*) stop "$1: holds files that $sums does not list" ;;
    esac
}

case "$REVISION" in
    "" | *[!A-Za-z0-9._-]*) stop "REVISION '$REVISION' is not allowed; allowed: a commit, or a branch or tag without slash" ;;
esac
if [ "${REQUIRE_COMMIT:-false}" = true ]; then
    not_a_commit="REVISION '$REVISION' is not allowed; allowed: a commit, as 40 hexadecimal digits"
    [ "${#REVISION}" = 40 ] || stop "$not_a_commit"
    case "$REVISION" in *[!0-9a-f]*) stop "$not_a_commit" ;; esac
fi
recorded="$TARGET.$REVISION.SHA256SUMS"
sums="$(dirname "$0")/SHA256SUMS"
[ -e "$sums" ] || sums="$recorded"

if [ -e "$TARGET" ]; then
    [ -e "$sums" ] || stop "$TARGET is there, but nothing was recorded of its download at $REVISION; name another TARGET, or give SHA256SUMS"
    check "$TARGET"
    echo "weights: $TARGET is there"
    exit 0
fi

# As helios_engine/checkpoint/resolve.py has them, without SHA256SUMS: one that comes with the files vouches for nothing.
set -- --include 'model_index.json' --include 'scheduler/*.json' \
    --include 'tokenizer/*.json' --include 'tokenizer/*.model' \
    --include 'transformer/*.json' --include 'transformer/*.safetensors' \
    --include 'vae/*.json' --include 'vae/*.safetensors' \
    --include 'text_encoder/*.json' --include 'text_encoder/*.safetensors'
partial="$TARGET.$REVISION.partial"
hf download "$REPO" --revision "$REVISION" --local-dir "$partial" "$@"
rm -rf "$partial/.cache"
if [ -e "$sums" ]; then
    check "$partial"
else
    sums="$recorded.partial"
    (cd "$partial" && find . -type f ! -name SHA256SUMS -exec sha256sum {} +) >"$sums"
    check "$partial"
    mv "$sums" "$recorded"
    echo "weights: recorded $recorded: the sums of what came, which nothing else vouches for"
fi
mv "$partial" "$TARGET"
echo "weights: wrote $TARGET"
