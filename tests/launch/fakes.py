"""Programs on PATH that note what they were called with, and answer as configured."""

import json
import pathlib
import sys

PROGRAM = """#!{python} -SE
import json, os, pathlib, sys
folder = pathlib.Path(__file__).parent
name = pathlib.Path(__file__).name
with open(folder / "calls.jsonl", "a") as calls:
    calls.write(json.dumps([name, sys.argv[1:], dict(os.environ)]) + "\\n")
answers = folder / f"{{name}}.answers"
left = json.loads(answers.read_text()) if answers.exists() else []
for index, (word, code, text) in enumerate(left):
    if word in sys.argv:
        beside = folder / f"{{name}}.{{os.getpid()}}"
        beside.write_text(json.dumps(left[:index] + left[index + 1 :]))
        beside.replace(answers)  # another call may be reading
        print(text)
        raise SystemExit(code)
"""


class Fakes:
    """Fake programs in a folder; `calls` is the list of (name, arguments, environment) so far."""

    def __init__(self, folder: pathlib.Path, *names: str):
        self.folder = folder
        for name in names:
            program = folder / name
            program.write_text(PROGRAM.format(python=sys.executable))
            program.chmod(0o755)

    def answer(self, name: str, *answers: tuple[str, int, str]) -> None:
        """(a word, exit code, output): for the next call with that word among its arguments, and so on."""
        (self.folder / f"{name}.answers").write_text(json.dumps(answers))

    @property
    def calls(self) -> list[tuple[str, list[str], dict[str, str]]]:
        file = self.folder / "calls.jsonl"
        return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
