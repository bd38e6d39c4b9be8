"""Extends the site of the documentation: pages outside `docs/`, and parts of the navigation.

The start page is README.md. CONTRIBUTING.md, SECURITY.md and others are pages too, with changed links.
Every page in docs/formats/ and every docs/add-a-*.md is added to the navigation automatically, so a new
reader needs no change in mkdocs.yml.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "wham_data/inference/weights/wham-tiny/CARD.md": "wham-tiny.md",
    "wham_data/pipelines/demo_recordings/LICENSE.md": "demo-recordings.md",
}
"""Pages outside docs/ -> their names on the site."""

LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Add pages to the navigation."""
    formats = [f"formats/{page.name}" for page in sorted(DOCS.glob("formats/*.md"))]
    guides = [page.name for page in sorted(DOCS.glob("add-a*.md"))]
    for section in config["nav"]:
        for name, pages in section.items():
            if name == "Contributing":
                section[name] = [*pages, *guides]
    config["nav"].insert(3, {"Formats": formats})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside docs/."""
    for source, name in ELSEWHERE.items():
        text = with_links(ROOT / source, (ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Change the links in a page of docs/ to pages outside docs/."""
    if page.file.generated_by is not None:
        return markdown
    return with_links(DOCS / page.file.src_uri, markdown)


def with_links(path: Path, text: str) -> str:
    """The text of the file at `path`, with its links changed to those of the site."""
    depth = len(path.parent.relative_to(DOCS).parts) if path.is_relative_to(DOCS) else 0

    def replaced(link: re.Match[str]) -> str:
        target = (path.parent / link[1]).resolve()
        name = ELSEWHERE.get(str(target.relative_to(ROOT)))
        if name is None and target.is_relative_to(DOCS):
            name = str(target.relative_to(DOCS))
        return f"]({'../' * depth}{name or link[1]}{link[2] or ''})"

    return LINK.sub(replaced, text)
