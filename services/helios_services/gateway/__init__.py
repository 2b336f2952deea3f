"""The gateway, with a gRPC and an HTTP door: stateless, knows Redis, not Ray."""
