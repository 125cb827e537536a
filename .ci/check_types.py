"""Type checks: `python .ci/check_types.py` runs mypy and fails on errors that .ci/known_type_errors.txt does not list.

The modules that pyproject.toml checks strictly have no error at all. The errors of the others, from before, are known:
one line each, "how often<TAB>message", without file and line, so that moved code stays known. --update writes the list
for code that has fewer of them.
"""

import collections
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
KNOWN = ROOT / ".ci/known_type_errors.txt"
ERROR = re.compile(r"\S+?:\d+: error: (.*)")


def main(argv: list[str]) -> int:
    words = [word for word in argv if word != "--update"]
    done = subprocess.run([sys.executable, "-m", "mypy", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not done.stdout.strip():  # mypy's own failure, or no mypy
        print(done.stdout + done.stderr, file=sys.stderr)
        return 2
    lines = [(line, match[1]) for line in done.stdout.splitlines() if (match := ERROR.match(line))]
    found = collections.Counter(message for _, message in lines)
    if "--update" in argv:
        KNOWN.write_text("".join(f"{count}\t{message}\n" for message, count in sorted(found.items())))
        return 0
    rows = (row.split("\t", 1) for row in KNOWN.read_text().splitlines())
    known = collections.Counter({message: int(count) for count, message in rows})
    new = found - known
    for line, message in lines:
        if message in new:
            print(line, file=sys.stderr)
    fewer = sum((known - found).values())
    print(
        f"mypy: {sum(new.values())} new errors, {sum(found.values())} in all"
        + (f"; {fewer} fewer than known: --update" if fewer else "")
    )
    return 1 if new else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
