#!/bin/sh
# Starts redis-server with its users. Their passwords come from files, and show neither in a ConfigMap nor in `ps`: what
# is written has their SHA-256.
set -eu
umask 077
conf_dir="${CONF_DIR:-/etc/redis}"
conf="${RUN_DIR:-/run/redis}/redis.conf"
{
    cat "$conf_dir/redis.conf"
    grep -v -e '^#' -e '^$' "$conf_dir/users" | while read -r name rules; do
        hash=$(tr -d '[:space:]' < "${PASSWORDS_DIR:-/etc/redis-passwords}/$name" | sha256sum | cut -d ' ' -f 1)
        echo "user $name on #$hash $rules"
    done
} > "$conf"
exec redis-server "$conf"
