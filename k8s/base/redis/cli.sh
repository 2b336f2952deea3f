#!/bin/sh
# redis-cli as one of the users: cli.sh USER ARGUMENT...
set -eu
REDISCLI_AUTH=$(cat "${PASSWORDS_DIR:-/etc/redis-passwords}/$1")
export REDISCLI_AUTH
user=$1
shift
exec redis-cli --tls --cacert "${TLS_DIR:-/etc/redis-tls}/ca.crt" --user "$user" "$@"
