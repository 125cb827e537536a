"""The glossary of a run's report: a line for each quantity that this run logged, from its metrics and its config."""

from cjepa_jax.reports.run import MOST_METRICS, Run

AT_HIDDEN = "between predicted and target features at the hidden patches"
PREDICTION = {  # objective.prediction_loss -> its text
    "smooth_l1": f"smooth l1 of the norm of each patch's error {AT_HIDDEN}",
    "elementwise": f"smooth l1 of each component's error, averaged over D, {AT_HIDDEN}",
    "l1": f"absolute error per component {AT_HIDDEN}",
    "mse": f"squared error per component {AT_HIDDEN}",
}
SIGREG = {  # objective.sigreg_kind -> its text
    "kl": "KL of the batch's normalised singular values to uniform, unweighted. High: few directions are used",
    "epps_pulley": "the Epps-Pulley statistic of the pooled features against N(0, I), unweighted",
}
TERMS = {  # of this package's other objectives
    "loss/cosine": "2 - 2 cos between the prediction from one view and the target's projection of the other",
    "loss/invariance": "squared distance of a view's projection from the mean over the scene's views, per component",
    "loss/epps_pulley": "the Epps-Pulley statistic of the projections against N(0, I)",
    "loss/labels": "error of the predicted labels",
    "loss/pixels": "squared error of the hidden patches' pixels",
    "loss/teacher": "error of the next frame's latents, predicted from true latents and actions",
    "loss/rollout": "error of latents that are predicted from earlier predictions and true actions",
    "loss/variance": "how far the latents' standard deviations are below 1, mean over components",
    "loss/covariance": "mean squared covariance of two different components of the latents",
    "loss/similarity": "squared change of the latents from one frame to the next",
    "loss/inverse": "squared error of the action that is inferred from two latents",
    "loss/slots": "squared error, per component, of the target's tokens as painted from the slots",
}
OTHERS = {  # metric -> its name on the page and its text
    "rankme": ("RankMe", "effective rank of the pooled features: exp of the entropy of their singular values."
               " Near 1 is collapse"),
    "feature_std": ("feature std", "standard deviation of the pooled features over scenes, mean over dimensions."
                    " Near 0 is collapse"),
    "response": ("response", "squared change of context features under a true removal, over the feature variance"),
    "copy_error": ("copying", "the error if each frame's latents were predicted to stay unchanged"),
    "ema_momentum": ("EMA momentum τ", "share of the target network kept at each step"),
    "learning_rate": ("learning rate", "the schedule's value"),
    "grad_norm": ("gradient norm", "global l2 norm of the gradient, before clipping"),
    "update_norm": ("update norm", "global l2 norm of the parameter change that was applied"),
    "context_fraction": ("context fraction", "share of the patches that the context encoder sees"),
    "fallback_scenes": ("fallback scenes", "scenes without a removed object: none eligible (random blocks then), or the"
                        " mask removes none"),
    "skipped_total": ("skipped", "updates not applied because the loss or a gradient was not finite"),
    "replaced_scenes": ("replaced scenes", "unreadable scenes that were replaced by a substitute"),
    "data_wait": ("data wait", "share of the time in which the step waited for its batch"),
    "explained/prediction": ("explained/prediction", "1 - squared error / variance of the target at hidden patches."
                             " 0 is no better than the mean"),
    "explained/causal": ("explained/causal", "1 - squared error / variance of the true change"),
    "removals/do_contrast": ("do-contrast R²", "share of the true difference between two removals that the predicted"
                             " difference explains, in colours, at the patches that neither object touches"),
    "removals/explained": ("explained change", "share of the true change of the target features that the residual head"
                           " predicts there. For wrong object it is the answer for the other object"),
    "projection_std": ("projection_std", "as feature std, after the projector"),
    "slots/mbo": ("slots/mbo", "best intersection over union of a slot's patches with each object, mean over objects"),
}  # fmt: skip
PROBE = {
    "R²": "share of a label's variance that ridge regression on frozen features explains. 1 is all, 0 or less is none",
    "random init": "the same encoder before training: what the architecture gives for nothing",
    "pixel PCA": "the same probe on principal components of the raw pixels: a floor that needs no network",
}
CHANGES = {
    "predicted change": "norm of the residual head's output at a visible patch",
    "true change": "norm of s_full - s_int there: target features of the scene with and without the removed objects",
}


def entries(run: Run) -> dict[str, str]:
    """Text by name, in the order of the page. What the run did not log is left out."""
    logged = run.metrics()
    known = dict.fromkeys(name.removeprefix("probe/").removesuffix("_random") for name in logged)
    found = {"loss": loss(run)} if "loss" in known else {}
    found |= {name: term(run, name) for name in logged if name.startswith("loss/")}
    found |= PROBE if run.groups() else {}
    found |= {title: text for name, (title, text) in OTHERS.items() if name in known}
    found |= {name: f"logged by {source(run, name)}" for name in run.others() if name not in OTHERS}
    if run.scenes is not None and run.scenes.predicted_change is not None and run.scenes.true_change is not None:
        found |= CHANGES
    return dict(list(found.items())[:MOST_METRICS])


def loss(run: Run) -> str:
    """What the objective minimises."""
    terms = run.terms()
    weights = {name: run.setting(f"objective.{name}_weight") for name in terms}
    if len(terms) > 1 and any(weight is not None for weight in weights.values()):
        shown = (name if weight is None else f"{weight} {name}" for name, weight in weights.items())
        text = f"what is minimised: {' + '.join(shown)}"
    else:
        text = f"what {run.setting('objective.type') or 'the objective'} minimises"
    moves = ". The target network moves, so a falling loss alone is not progress"
    return text + (moves if "ema_momentum" in run.metrics() else "")


def term(run: Run, name: str) -> str:
    """A term of the loss, or its floor."""
    chosen, causal = run.setting("objective.prediction_loss"), run.setting("objective.causal_weight")
    kind = run.setting("objective.sigreg_kind") or "kl"
    if name.endswith("_floor"):
        return f"the least that {name.removesuffix('_floor')} can be with this batch"
    if name == "loss/prediction" and chosen is not None:
        text = PREDICTION.get(str(chosen), f"{chosen}, {AT_HIDDEN}")
        normed = run.setting("objective.target_norm") == "layer_norm"
        return text + (" (targets standardised over D)" if normed else "")
    if name == "loss/causal" and causal is not None:
        every = run.setting("objective.causal_tokens") == "context"
        where = "all visible patches" if every else "the visible patches of what was not removed"
        return f"squared error of the residual head against s_full - s_int, unweighted, at {where}"
    if name == "loss/sigreg" and run.setting("objective.sigreg_weight") is not None and str(kind) in SIGREG:
        return SIGREG[str(kind)]
    if name in TERMS and str(run.setting("objective.type")).startswith("cjepa_jax."):
        return TERMS[name]
    return f"a term of the loss, logged by {run.setting('objective.type') or 'the objective'}"


def source(run: Run, name: str) -> str:
    """Who logs a metric that is not this package's."""
    monitors = run.setting("monitors")
    section = monitors.get(name.partition("/")[0]) if isinstance(monitors, dict) else None
    if isinstance(section, dict):
        return f"the monitor {section.get('type')}"
    return str(run.setting("objective.type") or "the objective")
