"""The pages of docs/: links, METHOD's numbers and table, and the site that is built of them."""

import ast
import importlib.util
import re
import subprocess
import sys
from urllib.parse import unquote

import pytest

from cjepa_jax.configs import vitl
from cjepa_jax.configuration import check
from tests.running import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
TUTORIALS = sorted(path for path in (ROOT / "examples").glob("*.py") if path.read_text().startswith("# %% [markdown]"))
METHOD = (DOCS / "METHOD.md").read_text()


def prose(path):
    """A page without its blocks of code. Of a tutorial, the text of its cells."""
    text = path.read_text()
    if path.suffix == ".py":
        cells = re.findall(r"^# %% \[markdown\]\n((?:#.*\n)*)", text, flags=re.M)
        text = "\n".join(re.sub("^# ?", "", cell, flags=re.M) for cell in cells)
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(path):
    """What #... may name in a page: its headings as GitHub and MkDocs write them, and the ids of numbered formulas."""
    headings = re.findall(r"^#+ (.*)$", prose(path), flags=re.M)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {word.strip().replace(" ", "-") for word in words} | {
        f"eq-{n}" for n in re.findall(r"\\tag\{(\d+)\}", METHOD)
    }


@pytest.mark.parametrize("path", [*PAGES, *TUTORIALS], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if "://" in link:
            continue
        name, _, anchor = unquote(link).partition("#")
        folder = DOCS / "tutorials" if path in TUTORIALS else path.parent
        target = (folder / name).resolve() if name else path
        if not target.exists():  # a page that is made of examples/NAME.py
            assert target.parent == DOCS / "tutorials", f"{path}: {link}"
            target = ROOT / "examples" / f"{target.stem}.py"
        assert target in TUTORIALS or target.exists(), f"{path}: {link}"
        assert not anchor or anchor in anchors(target), f"{path}: {link}"


def test_files_that_pages_name_are_there():
    for path in [*(DOCS / name for name in ("METHOD.md", "index.md")), *(DOCS / "reference").iterdir(), *TUTORIALS]:
        for name in re.findall(r"`((?:configs|examples|docs|cjepa_jax|launch|tests)/[\w./]+)`", prose(path)):
            assert (ROOT / name).exists(), f"{path}: {name}"


def test_the_equations_are_numbered_in_order_and_citations_name_one_that_is_there():
    numbers = [int(n) for n in re.findall(r"\\tag\{(\d+)\}", METHOD)]
    assert numbers == list(range(1, len(numbers) + 1))
    lines = {n: len(re.findall(r"^\d+\. ", part, flags=re.M)) for n, part in algorithms().items()}
    for path in [path for top in ("cjepa_jax", "configs", "tests") for path in (ROOT / top).rglob("*.py")]:
        for found in re.finditer(
            r"METHOD((?:,? ?\(\d+\))+)(, Algorithm (\d), lines? (\d+)(?:-(\d+))?)?", path.read_text()
        ):
            assert {int(n) for n in re.findall(r"\d+", found[1])} <= set(numbers), f"{path}: {found[0]}"
        for found in re.finditer(r"METHOD, Algorithm (\d)(?:, lines? (\d+)(?:-(\d+))?)?", path.read_text()):
            last = int(found[3] or found[2] or 1)
            assert found[1] in lines and last <= lines[found[1]], f"{path}: {found[0]}"


def algorithms():
    """METHOD's algorithms: number -> text."""
    parts = re.split(r"^### Algorithm (\d).*$|^## ", METHOD, flags=re.M)
    return {number: text for number, text in zip(parts[1::2], parts[2::2], strict=False) if number}


def test_the_table_of_hyper_parameters_is_that_of_vitl():
    section = METHOD.partition("## Hyper-parameters of the reference run")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| .*? \| `([a-z_.0-9]+)` \| (.+?) \|$", section, flags=re.M)
    known = dict(check.flatten(vitl.get_config()))
    assert len(rows) >= 20 and len(dict(rows)) == len(rows)
    for key, text in rows:
        value = text.strip("`") if text.startswith("`") else ast.literal_eval(text)
        assert known[key] == value, key


def test_the_keys_of_the_table_of_decisions_are_there():
    section = METHOD.partition("## How open questions were decided")[2].partition("\n## ")[0]
    known = dict(check.flatten(vitl.get_config()))
    for key, value in re.findall(r"`((?:data|mask|objective|optim|train|sharding)\.[a-z_.]+)(?:=([^`]+))?`", section):
        assert key in known, key
        if value and isinstance(known[key], str):
            check.check(check.override(vitl.get_config(), {key: value}))


def test_the_figure_of_method_is_drawn(tmp_path):
    spec = importlib.util.spec_from_file_location("figure", DOCS / "figures/method.py")
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    files = tmp_path / "one.svg", tmp_path / "two.svg"
    for file in files:
        figure.main(file)
    assert "<image" in files[0].read_text() and files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.needs("mkdocs")
def test_the_site_is_built_without_a_warning_and_asks_nobody_for_anything(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        # What a browser fetches by itself: not links, which people click.
        tags = re.findall(r"<(?:script|img|iframe|source|video|link)\b[^>]*>", text)
        fetched = [tag for tag in tags if re.search(r"(?:src|href)=[\"']?(?:https?:)?//", tag)]
        assert [tag for tag in fetched if 'rel="canonical"' not in tag] == [], page
        assert "arithmatex" not in text and "$$" not in re.sub(r"<(pre|code).*?</\1>", "", text, flags=re.S), page
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", sheet.read_text()), sheet
    for tutorial in TUTORIALS:
        made = tmp_path / "tutorials" / tutorial.stem
        assert all(made.with_suffix(suffix).exists() for suffix in (".html", ".ipynb", ".py"))
    assert (tmp_path / "METHOD.html").read_text().count('class="formula" id="eq-') == METHOD.count("\\tag{")
