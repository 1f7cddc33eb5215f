"""kgw beside a real Envoy: the same bytes in, the same observations out."""
