"""Questions as numbers of words, as ALOE reads them: lower case, without "?", split at blanks."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from cjepa_jax.errors import DataError

MOST_WORDS = 4096  # of a vocabulary. CLEVRER's has 81


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Words in the order of their characters, numbered from 1. 0 is padding. Punctuation is part of a word: "cube,"."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Vocabulary":
        """All words of the texts. Raises DataError for more than MOST_WORDS."""
        found: set[str] = set()
        for text in texts:
            found.update(split(text))
            if len(found) > MOST_WORDS:
                raise DataError(f"the questions have more than {MOST_WORDS} different words: these are not questions")
        return cls(tuple(sorted(found)))

    def __len__(self) -> int:
        """With padding."""
        return len(self.words) + 1

    def __call__(self, texts: Sequence[str], length: int, name: str) -> tuple[np.ndarray, int]:
        """Numbers int32 [n, length] of n texts, padded with 0, and how many words are not in the vocabulary.

        These are left out, and the words after them move up. Raises DataError for a text of more than `length` words,
        whose limit is called `name`.
        """
        place = {word: number for number, word in enumerate(self.words, 1)}
        out, strange = np.zeros((len(texts), length), np.int32), 0
        for row, text in enumerate(texts):
            words = split(text)
            if len(words) > length:
                raise DataError(f"{text[:80]!r} has {len(words)} words: must be at most {name} = {length}")
            known = [place[word] for word in words if word in place]
            strange += len(words) - len(known)
            out[row, : len(known)] = known
        return out, strange


def split(text: str) -> list[str]:
    """The words of a text."""
    return [word for word in text.lower().replace("?", "").split(" ") if word]
