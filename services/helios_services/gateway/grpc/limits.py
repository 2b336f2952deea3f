"""What one client can take of the gateway's connections: options of the gRPC server, each chosen on purpose."""

from helios_services.config import GatewayConfig

MAX_METADATA_BYTES = 16 * 1024
"""The most that a call's headers may take, as soft and as hard limit. Between the two, gRPC refuses calls at random."""
KEEPALIVE_S, KEEPALIVE_TIMEOUT_S = 30, 10
"""A peer that is gone without a word is noticed after both together, and its calls end."""
MIN_PING_INTERVAL_S, MAX_PING_STRIKES = 10, 3
"""Pings that come faster are strikes; one more than allowed ends the connection with ENHANCE_YOUR_CALM."""
STREAMS = 1000
"""Calls in progress on one connection; a client waits with those beyond, or opens another connection."""
PENDING = 10_000
"""Calls that have arrived and that this process has not come to yet. Beyond it gRPC would drop some by chance, a paying
caller's as well as a stranger's; below it each is looked at."""
HANDSHAKE_S = 20
"""For TLS and the HTTP/2 preface: a connection that says nothing is closed."""
IDLE_S = 600
"""A connection without a call is closed; clients open it again with the next call."""
AGE_S = 3600
"""No new calls on older connections, so that clients spread over new gateways and show renewed certificates. Calls in
progress go on for as long as they last (no grace limit): a live session can be hours long, and cutting it would gain
nothing, for peers that are gone are noticed by the keepalive."""


def server_options(config: GatewayConfig) -> list[tuple[str, int]]:
    """The options of grpc.aio.server."""
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.server.max_pending_requests", PENDING),
        ("grpc.server.max_pending_requests_hard_limit", PENDING),
        ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),  # no limit: a stream that waits for its next chunk sends nothing else
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_S * 1000),
        ("grpc.http2.max_ping_strikes", MAX_PING_STRIKES),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_S * 1000),
        ("grpc.max_connection_idle_ms", IDLE_S * 1000),
        ("grpc.max_connection_age_ms", AGE_S * 1000),
    ]
