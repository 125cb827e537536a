"""The prose of docs, docstrings and comments: standard terms, short sentences, few semicolons."""

import ast
import functools
import io
import re
import tokenize

import pytest

from tests.running import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
SOURCES = [path for top in ("cjepa_jax", "configs", "launch", "examples") for path in (ROOT / top).rglob("*.py")]
TESTS = [path for top in ("tests", ".ci") for path in (ROOT / top).rglob("*.py")]
GENERATED = ("docs/results/",)
COMMAND = re.compile(r"^ {4,}(?:python|--|\.venv|cjepa|pip|[$]).*$", flags=re.M)  # a line of a docstring
MOST = 20  # semicolons per 10,000 words
A_FILE = 4  # semicolons that a short file may have
MOST_IN_MESSAGES = 40  # per 10,000 words of them
CODE = re.compile(r"[{]\s|\$[\w(]|base64")  # in a text: it is a style sheet, a shell command or a picture
TURNS = {  # what to write instead
    r"\bgo(es|ing)? on\b|\bwent on\b": "continue, resume",
    r"\b(stands?|stood|lies|lie) (beside|besides|next to)\b": "is reported next to, is stored next to",
    r"\b(kept|said|named|written|put|installed) besides\b": "also",
    r"\bof (its|their|one's|his|your|our) own(?=[.,;:)]|$| (and|or|in|at|on|for|by|to|that|if)\b)": "separate, custom",
    r"\bso many\b": "this number of",
    r"\bwhatever\b": "any, all, everything that",
    r"\bcannot be meant\b": "is invalid",
    r"\bas it (is|was)\b": "unchanged",
    r"\bas they (are|were)\b": "unchanged",
    r"(?<!there )\bis no (?!longer|more|better)": "is not a",
    r"(?<!there )\bare no (?!longer|more)": "are not",
    r"\bas good as absent\b": "treated as absent",
    r"\bwithout a word\b": "without communication",
    r"\bwhat (a|an|the) [a-z]+ makes of\b": "its outputs for",
    r"\bnobody's\b": "no",
    r"\bever more seldom\b": "at growing intervals",
    r"\b(all|none) the same\b": "still",
    r"\bthe document('s)?\b": "METHOD (n), the description",
    r"\bword for word\b": "unchanged",
    r"\bby another name\b": "the same as",
    r"\bin the place of\b": "instead of",
    r"\banew\b": "again",
    r"\btrainings\b": "training runs",
}
KEPT = ("CHANGELOG.md", "cjepa_jax/data/worlds/")  # earlier entries, and sources whose checksum is part of data sets


def rewritten(paths):
    """Those of the files that are not generated."""
    return [path for path in paths if not path.relative_to(ROOT).as_posix().startswith(GENERATED)]


def turns(path):
    """What a file must not say. Files of KEPT may say the last three."""
    kept = path.relative_to(ROOT).as_posix().startswith(KEPT)
    return list(TURNS.items())[: -3 if kept else None]


def page(text):
    """The prose of a Markdown page: no code, formulas, links or quoted words."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    text = re.sub(r"^\$\$.*?\$\$", "", text, flags=re.M | re.S)
    text = re.sub(r"^ {4,}.*$|^\| 20\d\d-.*$", "", text, flags=re.M)  # code, and the records of campaigns
    return spoken(text)


def source(text):
    """The prose of a Python file: its docstrings and comments."""
    found = [
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found += [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]
    return spoken("\n".join(COMMAND.sub("", part) for part in found))


def messages(text):
    """The string literals of a Python file that hold a sentence: no docstrings, and nothing shorter than three words.

    Parts that an f-string fills in become "x"."""
    tree = ast.parse(text)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "x" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inside:
            found.append(node.value)
    return [part for part in found if len(part.split()) > 2]


def spoken(text):
    """The text without inline code, quotations and addresses."""
    return re.sub(r"`[^`\n]*`|\"[^\"\n]*\"|\$[^$\n]*\$|https?://\S+|\]\([^)]*\)", " ", text)


@functools.cache
def read(path):
    return (page if path.suffix == ".md" else source)(path.read_text())


def words(text):
    return len(re.findall(r"[A-Za-z][A-Za-z'’-]*", text))


@pytest.mark.parametrize("paths", [PAGES, SOURCES, TESTS], ids=["pages", "sources", "tests"])
def test_prose_has_few_semicolons(paths):
    texts = {path: read(path) for path in rewritten(paths)}
    total = 10_000 * sum(text.count(";") for text in texts.values()) / max(1, sum(map(words, texts.values())))
    assert total <= MOST, f"{total:.0f} semicolons per 10,000 words: {MOST} at most"
    for path, text in texts.items():
        most = max(A_FILE, 3 * MOST * words(text) / 10_000)
        assert text.count(";") <= most, f"{path}: {text.count(';')} semicolons"


@pytest.mark.parametrize("paths", [PAGES, SOURCES, TESTS], ids=["pages", "sources", "tests"])
def test_prose_has_none_of_the_turns_that_readers_have_to_translate(paths):
    found = [
        f"{path.relative_to(ROOT)}: {match[0]!r}: write {instead!r}"
        for path in rewritten(paths)
        for turn, instead in turns(path)
        for match in re.finditer(turn, read(path).replace("\n", " "), flags=re.I)
    ]
    assert not found, "\n".join(found)


def test_messages_have_few_semicolons():
    texts = [spoken(text) for path in SOURCES for text in messages(path.read_text()) if not CODE.search(text)]
    total = 10_000 * sum(text.count(";") for text in texts) / sum(map(words, texts))
    assert total <= MOST_IN_MESSAGES, f"{total:.0f} semicolons per 10,000 words: {MOST_IN_MESSAGES} at most"


def test_messages_have_none_of_them():
    found = [
        f"{path.relative_to(ROOT)}: {match[0]!r} in {text[:60]!r}: write {instead!r}"
        for path in SOURCES
        for text in messages(path.read_text())
        for turn, instead in turns(path)
        for match in re.finditer(turn, spoken(text.replace("\n", " ")), flags=re.I)
    ]
    assert not found, "\n".join(found)
