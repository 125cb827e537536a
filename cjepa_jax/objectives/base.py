"""The contract between an objective and everything that runs it."""

from typing import Any, Protocol, runtime_checkable

from cjepa_jax.types import Array, Batch, Params


class Objective(Protocol):
    """Built from config.objective (+ dtype and the total number of steps). Frozen, so jit can close over it.

    Its class may say more, each as a plain class attribute without annotation:

      exports = ("encoder", "predictor")
          Parts of `params` that other code can use, so that cjepa_jax.load, export and init_from take them: models'
          Encoder(**objective.encoder) and, where it is named, models' Predictor(**objective.predictor).
          The target, if there is one, is such an encoder's parameters, or a dict with them under "encoder".
          Default: (), nothing.
      predicts = True
          `encode_context` and `predict` infer hidden tokens (`Interventional`), so protocols can ask. Default: False.
      kinds = ("video", "episodes")
          Kinds of scenes (data/kinds) that it trains on. Default: these two, since an episode is a video too.
      framewise = True
          Its "encoder" encodes each frame of a clip as an image. So init_from can start it. Default: False.
      second_mask = True
          It predicts scenes that have two masks with each of them (masks.check.Mask). Default: False.
      averaged = "trunk"
          The part of `params["encoder"]` whose moving average the target is. Default: "", all of it.
      grace = 300
          Steps at the start in which collapsed features are normal, so that nothing warns of them. Default: 0.
      method = "masked autoencoder"
          A phrase for the model card. Default: "".
    """

    patch: int  # pixels per token side and
    tubelet: int  # frames per token, and
    max_removed: int  # objects that can be removed at once (0: any number), for the data pipeline

    def init(self, key: Array, batch: Batch) -> tuple[Params, Params, Params]:
        """Trained parameters, the EMA target's and other state ({} for none), whose keys are not the parameters'."""

    def loss(
        self, params: Params, target: Params, extra: Params, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, tuple[dict[str, Array], Params]]:
        """The scalar to minimise, diagnostics by name, and the next `extra`.

        Diagnostics are scalars that are logged under their names. "loss" must be among them: it is the scalar. Terms of
        it are "loss/NAME". Optional is "per_scene" [B]: an error of each scene alone, which is not finite where the
        scene is to blame.
        """

    def next_target(self, params: Params, target: Params, step: Array) -> Params:
        """The target after the optimiser's step."""

    def encode(self, params: Params, video: Array) -> Array:
        """Features of whole scenes, [B, T, H, W, C] -> [B, N, D]: what probes see.

        They pass `params | extra` of a state, so that running statistics reach the encoder that needs them.
        """


class PerExample:
    """Base of objectives whose loss is a reduction over per-example terms: loss = reduce(per_example_terms(...)).

    An example is a scene. train_step.make can then take a batch in slices, one after the other or each on its device,
    with the loss and the gradient of the whole batch. An objective that overrides `loss` is not taken in slices.
    """

    indivisible: str = ""  # "x needs", where `per_example_terms` needs the batch as a whole because of x

    def loss(self, params: Params, target: Params, extra: Params, batch: Batch, key: Array, step: Array):
        """See Objective."""
        return self.reduce(*self.per_example_terms(params, target, extra, batch, key), extra, key, step)

    def per_example_terms(
        self, params: Params, target: Params, extra: Params, batch: Batch, key: Array
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """(terms, stats): float arrays through which the gradient flows, and everything else that `reduce` needs.

        Each array has a leading axis. It is B where a scene's values depend on no other scene, and 1 for a monitor of
        the slice. Slices are concatenated along it. Each slice has its own key.
        """
        raise NotImplementedError

    def reduce(self, terms: dict[str, Array], stats: dict[str, Array], extra: Params, key: Array, step: Array):
        """What `loss` returns, from the whole batch's terms and stats in any order. "per_scene" has the same order."""
        raise NotImplementedError


def kinds(objective: Any) -> tuple[str, ...]:
    """The kinds of scenes that an objective or its class trains on. See `Objective`."""
    return tuple(getattr(objective, "kinds", ("video", "episodes")))


def exports(objective: Any) -> tuple[str, ...]:
    """The parts that an objective or its class exports. See `Objective`."""
    return tuple(getattr(objective, "exports", ()))


@runtime_checkable
class World(Objective, Protocol):
    """An objective that predicts the next frame's latents from actions. Planners take its two functions.

    A latent is what stands for one frame: [D], or [M, D] for M tokens. Below it is written as D.
    """

    history: int  # the most frames that `predict` uses

    def latents(self, params: Params, frames: Array) -> Array:
        """The latent of each frame on its own: uint8 [B, T, H, W, C] -> float32 [B, T, D].

        `params` is `params | extra` of a state, as for `encode`. A frame has the same latent in a clip of any length.
        """

    def predict(
        self, params: Params, extra: Params, latents: Array, actions: Array, proprio: Array | None = None
    ) -> Array:
        """The next latent, [B, t, D] and actions [B, t, A] -> [B, D].

        actions[:, i] was taken at latents[:, i], the last one at the last latent. t is any number of frames from 1. A
        model with a memory of h frames uses the last h. `proprio` [B, t, S] is given where the model was trained with
        it. The result is in the space of `latents`, so it can be appended to them for a rollout.
        """


@runtime_checkable
class Imitator(Objective, Protocol):
    """An objective that acts: control plays it as a policy (evals/control.py)."""

    chunk: int  # actions of a call of `act`
    proprio: bool  # whether `act` needs the agent's state

    def sizes(self, params: Params) -> tuple[int, int]:
        """(A, S): components of an action, and of the agent's state (0 if it is not needed), of these parameters."""

    def act(self, params: Params, frames: Array, goals: Array, proprio: Array | None = None) -> Array:
        """The next actions [B, chunk, A] from what is seen: frames and images of the goals, uint8 [B, H, W, C] each.

        `proprio` float32 [B, S] is the agent's state.
        """


@runtime_checkable
class Masking(Objective, Protocol):
    """An objective that trains on partly hidden scenes.

    The report has pictures of the hidden patches. An objective without `encode_context` has no pictures, and its masks
    may hide nothing.
    """

    def encode_context(self, params: Params, batch: Batch) -> Array:
        """Tokens [B, N, D] of what stays visible, encoded on their own. 0 elsewhere."""


@runtime_checkable
class Segmenting(Objective, Protocol):
    """An objective that assigns each pixel to a slot. evals/segments.py compares these segments with objects."""

    segment_count: int  # K, the number of slots

    def segments(self, params: Params, video: Array) -> Array:
        """Each pixel's slot, 0 .. K - 1: uint8 [B, T, H, W, C] -> int32 [B, T, H, W]. `params` as for `encode`."""


@runtime_checkable
class Flow(Objective, Protocol):
    """An objective that estimates optical flow. evals/flow.py compares it with the true one."""

    def flow(self, params: Params, pairs: Array) -> Array:
        """From the first to the second frame of each pair, in pixels: uint8 [B, 2, H, W, C] -> float32 [B, H, W, 2].

        A pixel's (x, y). `params` as for `encode`.
        """


@runtime_checkable
class Painting(Masking, Protocol):
    """An objective that paints what is hidden: the report shows it beside the scene."""

    def reconstruct(self, params: Params, batch: Batch) -> Array:
        """The scenes as painted from what stays visible, [B, T, H, W, C] of the type of batch.video."""


@runtime_checkable
class Interventional(Masking, Protocol):
    """An objective that says what removing objects changes: the report shows it."""

    def targets(self, target: Params, batch: Batch) -> tuple[Array, Array | None]:
        """Tokens [B, N, D] of the scene and of the scene under do(remove), by the target encoder."""

    def predict(self, params: Params, context: Array, batch: Batch) -> tuple[Array, Array]:
        """Predicted tokens and predicted change, [B, N, D] each, from encoded context tokens."""
