"""The fields of a TrafficPolicy, a module each."""
