"""Malformed and hostile input against a whole proxy, judged by what reached the other side."""
