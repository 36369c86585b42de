"""What the site has beyond docs/: pages of results/, links that leave docs/, the API reference.

MkDocs calls the functions of this module (``hooks`` in mkdocs.yml). GitHub shows the same files
without it, so the pages in docs/ stay plain Markdown with links into the repository.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
_PAGES = ("results/**/*.md", "results/**/*.png", "CHANGELOG.md", "CONTRIBUTING.md")
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```\n?)", re.MULTILINE | re.DOTALL)
_MODULE = re.compile(r"^## `([\w.]+)`$")
_NAME = re.compile(r"^\| \[`(\w+)`\]\([^)]*\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages and figures that lie outside docs/, under their own paths."""
    for pattern in _PAGES:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turns the links of a page, outside its blocks of code, and adds the API reference."""
    source = Path(page.file.abs_src_path)
    if source == ROOT / "docs" / "api.md":
        markdown = _with_reference(markdown)
    parts = _FENCE.split(markdown)
    here = Path(page.file.src_uri).parent
    parts[::2] = [
        _LINK.sub(lambda link: _turn_link(link, source, here, config, files), part)
        for part in parts[::2]
    ]
    return "".join(parts)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Drops the roles (``:class:`` and the like) that docstrings have before a name."""
    return re.sub(r":(?:class|func|meth|mod|data|attr|exc):(?=<code>)", "", html)


def _turn_link(link: re.Match[str], source: Path, here: Path, config: Any, files: Files) -> str:
    """A link as the site needs it: to a page, to the repository, or, without one, its text."""
    mark, text, target, anchor = link[1], link[2], link[3], link[4] or ""
    path = Path(os.path.normpath(source.parent / target))
    for base in (ROOT / "docs", ROOT):
        if path.is_relative_to(base):
            name = path.relative_to(base).as_posix()
            if files.get_file_from_path(name):
                return f"{mark}[{text}]({Path(os.path.relpath(name, here)).as_posix()}{anchor})"
    if not config.repo_url or not path.is_relative_to(ROOT):
        return text
    kind = "tree" if path.is_dir() else "blob"
    name = path.relative_to(ROOT).as_posix()
    return f"[{text}]({config.repo_url.rstrip('/')}/{kind}/main/{name}{anchor})"


def _with_reference(markdown: str) -> str:
    """Names in the tables lead to their reference, which follows each table."""
    lines: list[str] = []
    module, blocks = "", []
    for line in [*markdown.splitlines(), "## `end`"]:
        heading, name = _MODULE.match(line), _NAME.match(line)
        if heading:
            lines += ["", *blocks]
            module, blocks = heading[1], []
        if name:
            full = f"{module}.{name[1]}"
            line = line.replace(name[0], f"| [`{name[1]}`][{full}]")
            blocks += [f"::: {full}", ""]
        lines.append(line)
    return "\n".join(lines[:-1]) + "\n"
