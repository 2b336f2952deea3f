"""H.264 chunks, fragmented MP4 and the artifact store."""
