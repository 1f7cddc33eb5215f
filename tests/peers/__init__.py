"""What the suites around the proxy share: raw HTTP/2 frames, and proxies as processes."""
