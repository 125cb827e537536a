"""Words of questions, numbered as the published code numbers CLEVRER's."""

import json
import pathlib

import numpy as np
import pytest

from cjepa_jax.data import vocabulary
from cjepa_jax.data.vocabulary import Vocabulary
from cjepa_jax.errors import DataError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "slots" / "clevrer_vocab.json"
TEXTS = (  # one of each of CLEVRER's 81 words, in its phrases
    "How many metal objects are moving when the video ends?",
    "What is the color of the last object to enter the scene before the cube's entrance?",
    "Are there any stationary rubber cylinders after the sphere's exit?",
    "What shape is the second object to collide with the cyan sphere, and the brown cylinder,",
    "gray cube, yellow object,",
    "Which of the following is not responsible for the collision between the blue cube and the green sphere?",
    "What will happen next without the purple cylinder?",
    "If the red sphere is removed, which event will happen? The cylinder's and object's collisions that begins first",
    "exits exiting entering enters presence colliding collides cubes spheres removed material exit",
)


def test_the_numbers_are_those_of_the_published_vocabulary():
    """Punctuation is part of a word there, "?" is not, and 0 is padding."""
    published = json.loads(GOLDEN.read_text())["q_vocab"]
    found = Vocabulary.of(TEXTS)
    assert ["PAD", *found.words] == published and len(found) == 82
    numbers, strange = found(["What is  the COLOR of the cube,?"], 8, "words")
    assert [published[n] for n in numbers[0]] == [*"what is the color of the cube,".split(), "PAD"] and not strange


def test_unknown_words_are_left_out_and_counted_and_long_texts_are_refused():
    found = Vocabulary.of(["is it red?"])
    numbers, strange = found(["is it very red", "", "blue"], 4, "most")
    np.testing.assert_array_equal(numbers, [[1, 2, 3, 0], [0] * 4, [0] * 4])
    assert strange == 2 and numbers.dtype == np.int32
    with pytest.raises(DataError, match="'is it very red' has 4 words: must be at most most = 3"):
        found(["is it very red"], 3, "most")
    with pytest.raises(DataError, match="more than 4096 different words"):
        Vocabulary.of(f"word{n}" for n in range(vocabulary.MOST_WORDS + 1))
    with pytest.raises(DataError) as caught:
        found(["a\nb " * 50], 3, "most")
    assert "\n" not in str(caught.value)
