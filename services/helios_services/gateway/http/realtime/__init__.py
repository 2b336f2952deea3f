"""Live sessions over a WebSocket, and tokens for the pages that hold them. docs/realtime.md has the messages."""
