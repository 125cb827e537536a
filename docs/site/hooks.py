"""What mkdocs.yml adds to MkDocs: tutorials made of examples/*.py, and formulas as MathML. All of it at build time.

A tutorial is a Python file in jupytext's percent format whose first cell is text. It becomes a page, a notebook and a
file to download. Formulas are written $...$ and $$...$$, in TeX. \\tag{3} numbers one, and `METHOD (3)` anywhere links
to it. Not all browsers show MathML's bold and script letters, so both are refused.
"""

import html
import json
import re
import textwrap
from pathlib import Path

import jupytext
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
FIRST = "# %% [markdown]"
LONG = 45  # lines of a cell, above which its page shows it on request
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
TAG = re.compile(r"\\tag\{(E?\d+)\}")
PICTURE = re.compile(r"!\[[^\]]*\]\([^)]+\)\n*")
LINK = re.compile(r"\[([^\]]+)\]\((?!http)[^)]+\)")
CITED = re.compile(r"METHOD \((\d+)\)")


def tutorials() -> list[Path]:
    """The files of examples/ that are tutorials."""
    return sorted(path for path in (ROOT / "examples").glob("*.py") if path.read_text().startswith(FIRST))


def on_files(files, config):
    """Adds page, notebook and script of each tutorial, and the charts that pages show, to the site."""
    for path in tutorials():
        text = path.read_text()
        book = jupytext.reads(text, fmt="py:percent")
        made = {".md": page(path.stem, book), ".ipynb": notebook(book), ".py": text}
        for suffix, content in made.items():
            files.append(File.generated(config, f"tutorials/{path.stem}{suffix}", content=content))
    return files


def page(name: str, book) -> str:
    """A tutorial as Markdown: its title, where to get it, its cells."""
    first, *rest = book.cells
    title, _, text = first.source.partition("\n")
    get = (
        f"[Notebook]({name}.ipynb){{ .md-button download }} [Script]({name}.py){{ .md-button download }}\n\n"
        f"From a clone: `python examples/{name}.py`. With `--smoke` it takes seconds and teaches nothing.\n"
    )
    cells = [cell.source if cell.cell_type == "markdown" else code(cell.source) for cell in rest]
    return "\n\n".join([title, get, text.strip(), *cells]) + "\n"


def code(source: str) -> str:
    """A cell of code; a long one is folded."""
    block, count = f"```python\n{source}\n```", source.count("\n") + 1
    if count <= LONG:
        return block
    return f'??? example "{count} lines of code"\n\n' + textwrap.indent(block, "    ")


def notebook(book) -> str:
    """A tutorial as a notebook, the same bits on every build."""
    book.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for i, cell in enumerate(book.cells):
        cell.id, cell.metadata = f"cell-{i}", {}
        if cell.cell_type == "markdown":
            # A downloaded notebook has no pictures and pages beside it.
            cell.source = LINK.sub(r"*\1*", PICTURE.sub("", cell.source)).strip()
    return json.dumps(book, indent=1) + "\n"


def on_page_markdown(markdown, page, config, files):
    """A page that stands alone in its tab needs no list of pages beside it."""
    if page.parent is None:
        page.meta["hide"] = ["navigation"]
    return markdown


def on_page_content(content, page, config, files):
    """Formulas to MathML; citations of METHOD's equations to links."""
    content = FORMULA.sub(lambda found: formula(found[2], found[1] == "div", page.file.src_uri), content)
    depth = page.file.url.count("/")
    return CITED.sub(rf'<a href="{"../" * depth}METHOD.html#eq-\1">METHOD (\1)</a>', content)


def formula(tex: str, block: bool, where: str) -> str:
    """One formula. Raises PluginError for letters that browsers would show as plain ones."""
    tex = html.unescape(tex).strip()
    number = TAG.search(tex)
    mathml = convert(TAG.sub("", tex), display="block" if block else "inline")
    lost = re.search(r'mathvariant="(?!normal)[^"]*"|negativethinmathspace|\\[a-zA-Z|]+', mathml)
    if lost:
        raise PluginError(f"{where}: {lost[0]} cannot be shown, in the formula {tex}")
    if not number:
        return f'<div class="formula">{mathml}</div>' if block else mathml
    return f'<div class="formula" id="eq-{number[1]}">{mathml}<span>({number[1]})</span></div>'
