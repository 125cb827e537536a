"""No two purposes share a stream of NumPy's, for any numbers that they add, and any count of them."""

import ast
import itertools
import pathlib

import numpy as np
import pytest

from cjepa_jax.configuration import seeds
from cjepa_jax.data import pipeline
from cjepa_jax.data.sources import phyre
from cjepa_jax.data.worlds import Balls, Craft, base

PACKAGE = pathlib.Path(seeds.__file__).parents[1]
COUNTS = {  # how many numbers each tagged purpose adds, from how it is called
    "order of PHYRE's tasks": 1,
    "choice among a scene's questions": 1,
    "the other object of a question": 2,
    "bootstrap": 1,
    "bootstrap of questions": 1,
    "bootstrap of scenes": 1,
    "bootstrap of fine-tuning's rows": 0,
    "order of classified scenes": 1,
    "views of a scene": 2,
    "objects that surprise": 1,
    "order of fine-tuning": 1,
    "PHYRE's tasks of an agent": 1,
    "PHYRE's candidate actions": 2,
    "balanced actions": 0,
    "pictures for principal components": 0,
    "batches of a layout": 0,
    "masks that may name objects": 1,
    "pair of objects": 1,
    "do-probe": 0,
    "other objects that are simulated away": 2,
    "tasks of a world with actions": 2,
    "policy of an episode": 0,
    "order of slots": 2,
    "first frame of slots": 2,
    "noise of slots": 2,
    "slots of a task's pictures": 0,
    "features of slots": 2,
    "random actions of a task": 1,
    "noise of an expert": 1,
    "policy of a task": 1,
    "frames of which plans are distilled": 0,
    "frames from which the world model predicts": 0,
    "points on shapes": 2,
    "points that are drawn of a file": 1,
    "synthetic sounds": 2,
    "tokens of a dense probe": 1,
    "causal states": 1,
    "embeddings of other scenes": 1,
    "training of ALOE": 1,
    "clusters of colours": 1,
    "scenes of a benchmark": 0,
    "masks of a peer": 1,
    "objects of a promise": 0,
    "tasks from recorded episodes": 0,
}
NUMBERS = (0, 1, 2, 3, 4, 5, 7, 21, 1001, 2**32 - 1, 2**32, 2**63)
OF_SCENES = {  # purpose -> the words behind the seed, from two numbers. The seeds that finished data depend on
    "scenes": lambda split, i: (split, i),
    "questions about Craft's scenes": lambda split, i: (split, i, 1),
    "masks": lambda i, epoch: (2, i, epoch),
    "order of scenes": lambda epoch, _: (3, epoch),
}
PLACES = {  # where NumPy's generators may be made, but for seeds.py: the seeds that finished data depend on
    "data/worlds/base.py": "[self.seed, SPLITS[self.split], i]",
    "data/worlds/craft/world.py": "[self.seed, SPLITS[self.split], i, QUESTIONS]",
    "data/sources/phyre.py": "[self.seed, SPLITS[self.split][1], i]",
    "data/pipeline.py": "[self.seed, DRAW, index, epoch] [seed, SHUFFLE, epoch]",
    "masks/slots.py": "constant",  # the published fixed set
    "data/worlds/promises.py": "i",  # which objects a check of a world removes
}


def first(rng, count=4):
    """The first numbers of a stream."""
    return tuple(rng.integers(0, 2**63, count).tolist())


def test_no_two_purposes_share_a_stream():
    """Tagged ones with every combination of awkward numbers, and the seeds of scenes. Two seeds."""
    found = {}
    splits = sorted(base.SPLITS.values())
    for seed in (0, 1000):
        for purpose, count in COUNTS.items():
            for numbers in itertools.product(NUMBERS, repeat=count):
                found[seed, purpose, numbers] = first(seeds.generator(seed, purpose, *numbers))
        for purpose, words in OF_SCENES.items():
            of_split = purpose in ("scenes", "questions about Craft's scenes")
            for one, two in itertools.product(splits if of_split else range(8), range(8)):
                found[seed, purpose, words(one, two)] = first(np.random.default_rng([seed, *words(one, two)]))
    assert len(set(found.values())) == len(found) > 1000


def test_numpy_shares_them_without_tags():
    """What the tags are for: zeros at the end say nothing, and a large number is two."""
    assert first(np.random.default_rng([7, 1])) == first(np.random.default_rng([7, 1, 0]))
    assert first(np.random.default_rng([7, 2**32])) == first(np.random.default_rng([7, 0, 1]))


def test_the_seeds_of_scenes_are_those_that_data_were_made_with():
    world = Craft(split="eval", size=32, frames=1, count=3, seed=5)
    assert first(world.rng(2)) == first(np.random.default_rng([5, 1, 2]))
    novel = Balls(split="layout", size=32, frames=1, count=3, seed=5, hold_out=True)
    assert first(novel.rng(2)) == first(np.random.default_rng([5, 7, 2]))
    assert base.SPLITS == {"train": 0, "eval": 1, "test": 4, "count": 5, "colour": 6, "layout": 7}
    assert {name: words[1] for name, words in phyre.SPLITS.items()} == {"train": 0, "eval": 1, "test": 4}
    assert (pipeline.DRAW, pipeline.SHUFFLE) == (2, 3)


def test_every_generator_of_the_package_is_listed():
    used = {}
    for file in PACKAGE.rglob("*.py"):
        name = str(file.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            made = ast.unparse(node.func)
            if (
                made.endswith(("default_rng", "SeedSequence", "RandomState", "random.seed"))
                and name != "configuration/seeds.py"
            ):
                assert ast.unparse(node.args[0]) in PLACES.get(name, ""), f"{name}: {ast.unparse(node)}"
            if made == "seeds.generator":
                assert not node.keywords
                used.setdefault(node.args[1].value, set()).add(len(node.args) - 2)
    assert used == {purpose: {count} for purpose, count in COUNTS.items()}
    assert seeds.TAGS.keys() == COUNTS.keys() and len(set(seeds.TAGS.values())) == len(COUNTS)
    assert min(seeds.TAGS.values()) > 1000


@pytest.mark.parametrize("seed, numbers", [(-1, ()), (2**128, ()), (0, (-1,)), (0, (2**64,))])
def test_what_has_no_stream_of_its_own_is_refused(seed, numbers):
    with pytest.raises(ValueError, match="must be in 0"):
        seeds.generator(seed, "bootstrap", *numbers)


def test_a_stream_is_the_same_on_every_machine():
    assert first(seeds.generator(1000, "bootstrap", 512), 2) == (8703850666342668789, 4196997981290263761)
