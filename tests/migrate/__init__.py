"""Manifests of earlier versions of kgateway, and what they are rewritten to."""
