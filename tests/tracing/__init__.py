"""Tracing: spans that a collector gets, and what requests say of traces."""
