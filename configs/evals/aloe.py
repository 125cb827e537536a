"""CLEVRER's questions, answered by ALOE from extracted slots, at the published size. Not run on the real data by us.

    python -m cjepa_jax.data.slot_files --slots=clevrer_videosaur_slots.pkl --out=data/clevrer_slots
    python -m cjepa_jax.train --config=configs/slots/clevrer.py --workdir=runs/clevrer
    python -m cjepa_jax.evaluate --config=configs/evals/aloe.py --checkpoint=runs/clevrer \
        --config.data.options.asked=CLEVRER/questions

Questions are the published {train,validation}.json. The test split has no answers, so the validation split is scored.
Predictive questions see rollouts of 32 frames, all others the encoder's slots, as published. Slots of all videos are
held in memory once, 0.46 MB a video, and twice that for videos with predictive questions: 14 GB for 15,000 videos, by
arithmetic. 400 epochs a training, on a GPU.

    --config.evals.protocols.aloe.rolled="()"     every question sees the encoder's slots
    --config.evals.protocols.aloe.steps=158_900     100 epochs
"""

from ml_collections import ConfigDict


def get_config():
    protocol = dict(
        type="cjepa_jax.evals.benchmarks.aloe:Aloe",
        frames=128,
        moments=25,
        every=5,
        words=(20, 12),
        reader=dict(depth=12, heads=8, head_width=18, units=512, embed=14, hidden=128, dropout=0.1),
        seeds=3,
        steps=635_600,
        batch=96,
        rate=1e-3,
        rolled=("predictive",),
        rollout=32,
        do=(),
        history=6,
        future=10,
        skip=2,
        rows=("observed slots", "question only"),
    )
    data = dict(
        source="cjepa_jax.data.sources.clevrer_slots:ClevrerSlots",
        path="data/clevrer_slots",
        count=0,
        options=dict(skip=1, stride=128, asked="CLEVRER/questions"),
    )
    evals = dict(fit=0, test=0, test_split="eval", random_inits=1, protocols=dict(aloe=protocol))
    return ConfigDict(dict(evals=evals, data=data)).lock()
