"""The job store: job records, queue, leases and the chunk log in Redis."""
