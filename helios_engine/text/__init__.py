"""Prompts to embeddings (UMT5), and embeddings between processes."""
