#!/bin/sh
# Starts redis-server with the password of the environment, which must show neither in a ConfigMap nor in `ps`.
set -eu
umask 077
conf="${RUN_DIR:-/run/redis}/redis.conf"
{ cat "${CONF_DIR:-/etc/redis}/redis.conf"; printf '\nrequirepass "%s"\n' "$REDIS_PASSWORD"; } > "$conf"
exec redis-server "$conf"
