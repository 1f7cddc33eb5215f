"""Kinds of `discovery.k8s.io`, one a file."""
