"""The kinds of GatewayExtensions, a module each."""
