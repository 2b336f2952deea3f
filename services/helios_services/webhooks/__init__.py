"""Webhooks: clients are told of ended jobs by signed HTTP calls."""
