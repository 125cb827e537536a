"""Classes of point clouds: linear probe and neighbours, next to a random network and to the groups' coordinates.

python -m cjepa_jax.evaluate --config=configs/evals/points.py --checkpoint=runs/point_jepa

Point-JEPA's published probe has the mean and the maximum of the tokens side by side (and a support vector machine):

    --config.evals.protocols.classify.pooling=mean+max

"pixel PCA" is of the groups' coordinates, in their order. ModelNet: --config.evals.protocols.classify.classes=40 and
--config.evals.fit=0 --config.evals.test=0 --config.evals.test_split=eval.
"""

from ml_collections import ConfigDict


def get_config():
    classify = dict(
        type="cjepa_jax.evals.classify:Classify",
        classes=8,
        low_shot=0.0,
        neighbours=20,
        attentive=False,
        steps=1000,
        pooling="mean",
    )
    return ConfigDict(dict(evals=dict(random_inits=3, protocols=dict(classify=classify)))).lock()
