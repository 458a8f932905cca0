"""What mkdocs needs to know about this repository.

- The package's folders lie at the top, and only the build makes one package of them. So they are put
  together in a folder of this build, where mkdocstrings reads the docstrings. Nothing is imported.
- Pages link to tests and other files beside docs/, which works on GitHub. In the site such a file is a
  page of its own that shows it.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
FOLDER = tempfile.TemporaryDirectory(prefix="prefect-langgraph-reference-")
PACKAGE = Path(FOLDER.name) / "prefect_langgraph"
LAYERS = ("core", "blocks", "tasks", "flows")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".md": "markdown"}
LINK = re.compile(r"(?<=\]\()(\.\./[^)\s#]+)")


@event_priority(100)  # before mkdocstrings looks for it
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the package together, and show mkdocstrings where."""
    shutil.rmtree(PACKAGE, ignore_errors=True)
    for layer in LAYERS:
        target = PACKAGE if layer == "core" else PACKAGE / layer
        shutil.copytree(ROOT / layer, target, ignore=shutil.ignore_patterns("__pycache__"))
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [FOLDER.name]
    return config


def beside_docs(page: str, target: str) -> str | None:
    """The path in the repository of what a page links to, when that is a file outside docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    inside = path.startswith("docs/")
    return path if not inside and (ROOT / path).is_file() else None


def page_of(path: str) -> str:
    """Where the site shows a file of the repository."""
    return f"source/{path}.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make a page of every file that a page links to."""
    linked = {
        path
        for page in files.documentation_pages()
        for target in LINK.findall(page.content_string)
        if (path := beside_docs(page.src_uri, target)) is not None
    }
    for path in sorted(linked):
        # Longer than any fence in it.
        fence, language = "`" * 10, LANGUAGES.get(Path(path).suffix, "text")
        code = (ROOT / path).read_text(encoding="utf-8")
        content = f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n{fence}{language}\n{code}{fence}\n"
        files.append(
            File.generated(config, page_of(path), content=content, inclusion=InclusionLevel.NOT_IN_NAV)
        )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to files outside docs/ to their pages."""
    here = page.file.src_uri
    if here.startswith("source/"):
        return markdown

    def lead(match: re.Match[str]) -> str:
        path = beside_docs(here, match[1])
        return match[1] if path is None else posixpath.relpath(page_of(path), posixpath.dirname(here))

    return LINK.sub(lead, markdown)
