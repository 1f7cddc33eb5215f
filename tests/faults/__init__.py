"""Backends that die, stall and lie, and clients that leave, over HTTP/1 and HTTP/2."""
