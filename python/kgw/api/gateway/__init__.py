"""Kinds of `gateway.networking.k8s.io`, one a file."""
