"""What a mutation is, and how it is applied to a copy of the tree."""

import dataclasses
import hashlib
import pathlib

ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Mutant:
    """`old`, which stands in `file` exactly once, becomes `new`. One of `tests` (ids, by spaces) must then fail.

    survives: why none can, where the mutated program does the same ("" where one must).
    """

    file: str
    old: str
    new: str
    tests: str
    survives: str = ""

    def apply(self, text: str) -> str:
        """The file's text, mutated. Raises: ValueError if `old` is not found exactly once."""
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.file}: {self.old!r} is found {count} times, not once")
        return text.replace(self.old, self.new)

    def files(self) -> list[str]:
        """The files of its tests."""
        return sorted({test.partition("::")[0] for test in self.tests.split()})

    def key(self, root: pathlib.Path = ROOT) -> str:
        """Of all that decides its fate, as far as two files tell: a verdict on another one is not used again."""
        texts = [(root / name).read_text() for name in (self.file, *self.files())]
        return hashlib.sha256("\0".join([self.old, self.new, self.tests, *texts]).encode()).hexdigest()[:16]


def of(file: str, *rows: tuple) -> tuple[Mutant, ...]:
    """Mutants of one file: rows of (old, new, tests) or (old, new, tests, survives)."""
    return tuple(Mutant(file, *row) for row in rows)


def tests_of(folder: str, *names: str) -> tuple[str, ...]:
    """The beginnings of the ids of the tests in some files: what follows is a test's name without "test_".

    A name may begin with folders below `folder`: "benchmarks/phyre".
    """
    paths = [f"{folder}{name}".rpartition("/") for name in names]
    return tuple(f"tests/{where}{slash}test_{name}.py::test_" for where, slash, name in paths)
