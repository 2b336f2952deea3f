#!/bin/sh
# preStop of a Ray worker: its replicas move or end in order before the pod does. Usage: drain-node.sh SECONDS
#
# The node is reported as draining. Serve starts replacements elsewhere and stops the replicas here: a dispatcher gives
# its jobs back after the chunk in progress, a denoiser finishes the call it is in. A replica that finds no other place
# is stopped its graceful_shutdown_timeout_s before the deadline. Whatever goes wrong costs at most one chunk per job.
#
# SECONDS count from here: the pod's grace period does not wait for the command line of Ray to start. Ray counts from when
# it is told, so it is told less.
set -u
deadline=$1
end=$(($(date +%s) + deadline))
startup=4
timeout "$deadline" ray drain-node ${NODE_ID:+--node-id "$NODE_ID"} --reason DRAIN_NODE_REASON_PREEMPTION \
    --reason-message "pod is terminating" --deadline-remaining-seconds $((deadline - startup)) || exit 0
while [ "$(date +%s)" -lt "$end" ] && grep -qa '[S]erveReplica' /proc/[0-9]*/cmdline 2>/dev/null; do
    sleep 1
done
