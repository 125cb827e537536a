"""NumPy's random streams. Each purpose has a tag, so no two purposes share a stream, for any numbers.

`np.random.default_rng([s, i])` and `([s, i, 0])` are the same stream, because NumPy fills a seed up to four words with
zeros. So tags are placed after these four words, in the spawn key, where every word counts, and each number takes two
words.

Scenes, masks and the order of scenes keep the seeds with which finished runs and data sets were made. These are four
words [seed, word, number, last], written where they are used. `word` is the split's (data/worlds/base.py and
data/sources/phyre.py), 2 for masks or 3 for the order (data/pipeline.py). `last` is 1 for Craft's questions, the epoch
for masks, 0 otherwise.
"""

import numpy as np

FORMAT = 2  # of the draws. Raised when they change, so that results of other draws are not reused
TAGS = {  # never reuse a number. Above 1000, so that none is the last word of a scene's seed
    "order of PHYRE's tasks": 1001,
    "choice among a scene's questions": 1002,
    "the other object of a question": 1003,
    "bootstrap": 1004,
    "bootstrap of questions": 1005,
    "bootstrap of scenes": 1006,
    "bootstrap of fine-tuning's rows": 1007,
    "order of classified scenes": 1008,
    "views of a scene": 1009,
    "objects that surprise": 1010,
    "order of fine-tuning": 1011,
    "PHYRE's tasks of an agent": 1012,
    "PHYRE's candidate actions": 1013,
    "balanced actions": 1014,
    "pictures for principal components": 1015,
    "batches of a layout": 1016,
    "masks that may name objects": 1017,
    "pair of objects": 1018,
    "do-probe": 1019,
    "other objects that are simulated away": 1020,
    "tasks of a world with actions": 1021,
    "policy of an episode": 1022,
    "order of slots": 1040,
    "noise of slots": 1041,
    "features of slots": 1042,
    "points on shapes": 1060,
    "points that are drawn of a file": 1061,
    "synthetic sounds": 1062,
    "tokens of a dense probe": 1063,
    "random actions of a task": 1023,
    "noise of an expert": 1024,
    "policy of a task": 1026,
    "frames of which plans are distilled": 1025,
    "frames from which the world model predicts": 1027,
    "embeddings of other scenes": 1064,
    "causal states": 1080,
    "training of ALOE": 1100,
    "clusters of colours": 1101,
    "first frame of slots": 1102,
    "slots of a task's pictures": 1103,
    "scenes of a benchmark": 1120,
    "masks of a peer": 1121,
    "objects of a promise": 1122,
    "tasks from recorded episodes": 1123,
}


def generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """The generator of a purpose of `TAGS`, for these numbers (a scene, an epoch, a count), in 0 .. 2^64 - 1.

    `seed` is in 0 .. 2^128 - 1, the four words before the tag. Raises KeyError, ValueError for others.
    """
    if not 0 <= seed < 2**128 or not all(0 <= number < 2**64 for number in numbers):
        raise ValueError(f"seed = {seed}, numbers {numbers}: must be in 0 .. 2^128 - 1 and 0 .. 2^64 - 1")
    words = [word for number in numbers for word in divmod(int(number), 2**32)]
    return np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=(TAGS[purpose], *words)))
