"""Features of questions in natural language: counts of words, without a language model."""

import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np

WORD = re.compile(r"\w+")


@dataclasses.dataclass(frozen=True)
class Words:
    """Counts the vocabulary's words and ordered pairs of neighbouring words: "red box" is not "box red".

    vocabulary: words ("red") and pairs ("red box"), sorted.
    """

    vocabulary: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str], least: int = 2) -> "Words":
        """The vocabulary of the fitting texts: terms that at least `least` of them contain, in any order of texts."""
        found = collections.Counter(term for text in texts for term in set(terms(text)))
        return cls(tuple(sorted(term for term, count in found.items() if count >= least)))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Counts float32 [n, V] of n texts. Terms outside the vocabulary are ignored."""
        place = {term: column for column, term in enumerate(self.vocabulary)}
        out = np.zeros((len(texts), len(place)), np.float32)
        for row, text in enumerate(texts):
            for term in terms(text):
                if term in place:
                    out[row, place[term]] += 1
        return out


def terms(text: str) -> list[str]:
    """The words of a text in lower case, then its pairs of neighbouring words."""
    words = WORD.findall(text.lower())
    return words + [" ".join(pair) for pair in zip(words, words[1:], strict=False)]
