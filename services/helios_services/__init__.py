"""The service around helios_engine: gateway, job store, Ray Serve deployments, media, client, telemetry."""
