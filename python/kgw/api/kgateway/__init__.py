"""Kinds of `gateway.kgateway.dev`, one a file."""
