"""Every field of kgateway's policies: what kgw makes of it, and which tests show it."""
