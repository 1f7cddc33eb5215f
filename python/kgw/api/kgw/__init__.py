"""Kinds of `kgw.dev`, one a file."""
