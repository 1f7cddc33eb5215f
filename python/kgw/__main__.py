"""``python -m kgw``: the ``kgw`` command of this interpreter."""

from __future__ import annotations

from kgw.cli import main

main()
