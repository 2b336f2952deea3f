"""How many replicas the queued and running work needs, and how Serve learns it."""
