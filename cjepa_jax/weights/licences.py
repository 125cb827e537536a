"""Names of licences in model cards, and the names that are shown."""

import json
import re
from collections.abc import Iterator

KNOWN = ("Apache-2.0", "MIT", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC0-1.0")
MOST = 100  # letters


def canonical(name: str) -> str:
    """One name for each licence, "unknown" for an invalid name."""
    plain = name if name.isprintable() and 0 < len(name) <= MOST else "unknown"
    return {known.lower(): known for known in KNOWN}.get(name.lower(), plain)


def write(name: str) -> Iterator[str]:
    """Lines of a card's front matter. Hubs know few licences, the others are "other" with a name."""
    yield f"license: {name.lower() if name in KNOWN else 'other'}"
    if name not in KNOWN:
        yield f"license_name: {json.dumps(name, ensure_ascii=False)}"


def read(card: str) -> str:
    """The licence in a card's front matter, "" if there is none."""
    front = re.match(r"---\s*\n(.*?)\n---", card, re.DOTALL)
    for key in ("license_name", "license"):
        found = front and re.search(rf"^{key}:[ \t]*(\S.*?)[ \t]*$", front[1], re.MULTILINE)
        name = _text(found[1]) if found else ""
        if name and (key == "license_name" or re.fullmatch(r"[\w.+-]{1,64}", name, re.ASCII)):
            return canonical(name)
    return ""


def _text(value: str) -> str:
    """YAML's text, quoted or not."""
    try:
        found = json.loads(value)
    except ValueError:
        return value.strip("'")
    return found if isinstance(found, str) else value
