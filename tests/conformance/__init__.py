"""The Gateway API's conformance tests in our own words: same names and meaning, real sockets."""
