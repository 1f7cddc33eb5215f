"""kgw beside Envoy, HAProxy and nginx, on the same work: `make bench-load`, see README.md."""
