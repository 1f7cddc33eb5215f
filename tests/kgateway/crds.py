"""Writes deploy/crds: the definitions of kgateway's kinds, made of the models.

python -m tests.kgateway.crds
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from tests.kgateway.fields import TESTS

from kgw.api.crd import definition, plurals
from kgw.api.kinds import KGATEWAY_GROUP
from kgw.api.yaml import document

if TYPE_CHECKING:
    from pathlib import Path

FOLDER: Final = TESTS.parent / "deploy" / "crds"


def files() -> dict[Path, str]:
    """The files, and what is in them."""
    head = "# Written by `make deploy-crds`; do not edit.\n"
    return {
        FOLDER / f"{KGATEWAY_GROUP}_{plural}.yaml": head + document(definition(kind))
        for kind, plural in plurals().items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{FOLDER}: {len(files())} definitions\n")
