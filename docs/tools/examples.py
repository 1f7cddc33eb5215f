"""A hook of MkDocs: the examples are pages, and what links to them from the documentation does.

The sources stay what they are; links to ``../examples/...`` work where the repository is browsed
and on the site alike.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LINK = re.compile(r"\]\((?:\.\./)+examples/([a-z_]+)(?:\.py)?(?:/[^)]*)?\)")


def _page(path: Path) -> str:
    """Returns a page that shows an example: a program, or the manifests of a directory."""
    if path.is_file():
        return f"# {path.name}\n\n```python\n{path.read_text(encoding='utf-8')}```\n"
    files = sorted(path.glob("*.yaml"))
    shown = (f"## {one.name}\n\n```yaml\n{one.read_text(encoding='utf-8')}```\n" for one in files)
    return "\n".join([f"# {path.name}/\n", *shown])


def _examples() -> list[Path]:
    programs = EXAMPLES.glob("*.py")
    return sorted([*programs, *{path.parent for path in EXAMPLES.glob("*/*.yaml")}])


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills the navigation's list of examples."""
    for entry in config.nav or []:
        if isinstance(entry, dict) and "Examples" in entry:
            entry["Examples"] = [{path.name: f"examples/{path.stem}.md"} for path in _examples()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each example."""
    for path in _examples():
        name = f"examples/{path.stem}.md"
        files.append(File.generated(config, name, content=_page(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links to examples into links to their pages."""
    up = "../" * page.file.src_uri.count("/")
    return LINK.sub(lambda link: f"]({up}examples/{link[1]}.md)", markdown)
