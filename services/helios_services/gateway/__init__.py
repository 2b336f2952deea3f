"""The gRPC gateway: stateless, knows Redis, not Ray."""
