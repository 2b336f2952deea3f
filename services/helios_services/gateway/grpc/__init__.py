"""The gRPC door: the only folder of the gateway that knows gRPC."""
