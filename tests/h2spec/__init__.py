"""Whether an HTTP/2 server does what RFC 9113 and RFC 7541 ask of it, frame by frame.

The cases are ours, written from the clauses that they name. They cover what the public tool h2spec
covers, and more; `docs/reliability.md` has the tool's own scores.
"""
