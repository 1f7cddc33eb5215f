"""Kinds of the Multi-Cluster Services API."""
