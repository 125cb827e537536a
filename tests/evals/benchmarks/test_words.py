"""Counting words: by hand."""

import numpy as np

from cjepa_jax.evals.benchmarks.words import Words, terms


def test_words_and_neighbouring_pairs_are_counted_in_order():
    texts = ["Red box, red ball?", "is the RED box blue"]
    words = Words.of(texts, least=1)
    assert terms("Red box?") == ["red", "box", "red box"]
    assert words.vocabulary == tuple(sorted(words.vocabulary))
    counts = dict(zip(words.vocabulary, words(texts).T.tolist(), strict=True))
    assert counts["red"] == [2, 1] and counts["red box"] == [1, 1] and counts["box red"] == [1, 0]
    assert counts["red ball"] == [1, 0] and "ball red" not in counts and "ball is" not in counts


def test_the_vocabulary_is_that_of_the_fitting_texts_whatever_their_order():
    texts = ["red box", "blue box", "box of red"]
    words = Words.of(texts, least=2)
    assert words.vocabulary == ("box", "red") and Words.of(texts[::-1]) == words
    assert np.array_equal(words(["red red zebra", "nothing known", ""]), [[0, 2], [0, 0], [0, 0]])
