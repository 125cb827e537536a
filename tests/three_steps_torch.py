"""Three training steps in float64 PyTorch, written from the method's description alone, for tests/golden.

    python -m tests.three_steps_torch          writes tests/golden/three_steps.json. Needs PyTorch

Nothing of the package is imported. Scenes are taken one by one, tokens are picked by index, and every formula is
written out: the encoder, the predictor, the three losses, AdamW, its schedule, the moving average.
"""

import json
import math

import numpy as np
import torch

from tests import three_steps as given
from tests.three_steps import Setting

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def positions(width: int) -> torch.Tensor:
    """Sines and cosines of time, row and column: a quarter of the width, then three eighths each; [N, width]."""
    quarter = 2 * (width // 8)
    rows = 2 * ((width - quarter) // 4)

    def code(place, size):
        half = size // 2
        angles = [place / 10000.0 ** (i / half) for i in range(half)]
        return [math.sin(a) for a in angles] + [math.cos(a) for a in angles] + [0.0] * (size % 2)

    times, high, wide = given.GRID
    codes = [
        code(t, quarter) + code(r, rows) + code(c, width - quarter - rows)
        for t in range(times)
        for r in range(high)
        for c in range(wide)
    ]
    return torch.tensor(codes, dtype=torch.float64)


def layer_norm(x, p=None):
    x = x - x.mean(-1, keepdim=True)
    x = x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6)
    return x if p is None else x * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def gelu(x, kind):
    if kind == "tanh":
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def attend(q, k, v, heads):
    """Each head's softmax(q k / sqrt(d)) v, side by side."""
    size = q.shape[-1] // heads
    out = []
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        out.append(torch.softmax(q[:, own] @ k[:, own].T / math.sqrt(size), -1) @ v[:, own])
    return torch.cat(out, -1)


def layer(p, i):
    return {key: layer(value, i) if isinstance(value, dict) else value[i] for key, value in p.items()}


def transformer(p, x, depth, heads, kind, cross=None):
    """Pre-norm blocks and a last norm, [n, D]. `cross` [n]: 1 context, 2 hidden. None: all attend to all."""
    for i in range(depth):
        b, width = layer(p["blocks"], i), x.shape[-1]
        q, k, v = linear(layer_norm(x, b["norm1"]), b["attention"]["qkv"]).split(width, -1)
        out = torch.zeros_like(x)
        own = torch.ones(len(x), dtype=torch.bool) if cross is None else cross == 2
        out[own] = attend(q[own], k[own], v[own], heads)
        x = x + linear(out, b["attention"]["out"])
        if cross is not None:
            y = layer_norm(x, b["norm_cross"])
            q, (k, v) = linear(y, b["cross"]["q"]), linear(y, b["cross"]["kv"]).split(width, -1)
            out = torch.zeros_like(x)
            for asks, answers in ((1, 2), (2, 1)):
                out[cross == asks] = attend(q[cross == asks], k[cross == answers], v[cross == answers], heads)
            x = x + linear(out, b["cross"]["out"])
        x = x + linear(gelu(linear(layer_norm(x, b["norm2"]), b["mlp"]["up"]), kind), b["mlp"]["down"])
    return layer_norm(x, p["norm"])


def encode(p, setting, video, only=None, zeroed=None):
    """Tokens of a clip [N, D]; `only` encodes these [n, D], `zeroed` the whole grid with zeros where it is False."""
    box = given.TUBELET * given.PATCH**2
    pixels = torch.tensor((given.patches(video) / 255.0 - np.tile(MEAN, box)) / np.tile(STD, box))
    x = linear(pixels, p["tokenizer"]["projection"]) + positions(given.WIDTH)
    if zeroed is not None:
        x = x * torch.tensor(zeroed)[:, None]
    if only is not None:
        x = x[torch.tensor(only)]
    return transformer(p["stack"], x, given.DEPTH, given.HEADS, setting.gelu)


def places_of(objects, removed):
    """The embedding of each removed object: by its lowest token, then the smaller, then the one further in front."""
    which = [k for k in range(len(removed)) if removed[k]]
    which.sort(key=lambda k: (min(np.flatnonzero(objects[k])), objects[k].sum(), np.flatnonzero(objects[k]).mean()))
    return {k: place for place, k in enumerate(which)}


def predict(p, setting, seen, scene):
    """Predicted tokens and changes [N, D] from the encoded context [n, D]; 0 where a token takes no part."""
    context, hidden = scene["context"], scene["hidden"]
    embedded, code, places = (
        linear(seen, p["embed"]),
        positions(given.NARROW),
        places_of(scene["objects"], scene["removed"]),
    )
    tokens, part = [], np.flatnonzero(context | hidden)
    order = {n: i for i, n in enumerate(np.flatnonzero(context))}
    for n in part:
        token = embedded[order[n]] if context[n] else p["mask_token"]
        if not context[n]:
            for k, place in places.items():
                if scene["objects"][k, n]:
                    token = token + p["object_embedding"][place]
        tokens.append(token + code[n])
    cross = torch.tensor(np.where(context[part], 1, 2)) if setting.attention == "cross" else None
    x = transformer(p["stack"], torch.stack(tokens), setting.depth, given.NARROW_HEADS, setting.gelu, cross)
    out = []
    for head in ("prediction", "residual"):
        whole = torch.zeros(given.TOKENS, given.WIDTH)
        whole[torch.tensor(part)] = linear(x, p[head])
        out.append(whole)
    return out


def token_error(z, setting):
    """Of each row of z [n, D]."""
    beta = setting.beta
    if setting.prediction_loss == "smooth_l1":
        size = torch.sqrt((z * z).sum(-1))
        return torch.where(size < beta, size**2 / (2 * beta), size - beta / 2)
    if setting.prediction_loss == "elementwise":
        return torch.where(z.abs() < beta, z**2 / (2 * beta), z.abs() - beta / 2).mean(-1)
    return z.abs().mean(-1) if setting.prediction_loss == "l1" else (z**2).mean(-1)


def of_scene(params, target, setting, scene):
    """One scene's errors, pooled features [D], and pairs (said, true) of predicted tokens and of predicted changes."""
    context, hidden = torch.tensor(scene["context"]), torch.tensor(scene["hidden"])
    if setting.encoder_input == "zeroed":
        seen = encode(params["encoder"], setting, scene["video"], zeroed=scene["context"])[context]
    else:
        seen = encode(params["encoder"], setting, scene["video"], only=scene["context"])
    predicted, residual = predict(params["predictor"], setting, seen, scene)
    with torch.no_grad():
        full = encode(target, setting, scene["video"])
        wanted = layer_norm(full) if setting.target_norm == "layer_norm" else full
    z = (predicted - wanted)[hidden]
    out = {
        "prediction": token_error(z, setting).mean(),
        "pooled": seen.mean(0),
        "pair": (predicted[hidden], wanted[hidden]),
    }
    out["own"] = float(torch.sqrt((z * z).sum(-1)).mean().detach())
    if setting.causal_weight:
        rest = scene["context"] & ~scene["objects"][scene["removed"]].any(0)  # an anchor shows removed objects too
        counted = rest if setting.causal_tokens == "remaining" else scene["context"]
        with torch.no_grad():
            if setting.intervened == "drop_tokens":
                without = torch.zeros_like(full)
                without[context] = encode(target, setting, scene["video"], only=scene["context"])
            else:
                without = encode(target, setting, scene["intervened"])
            change = full - without
        out["causal"] = ((residual - change)[torch.tensor(counted)] ** 2).sum(-1).mean()
        out["change"] = residual[torch.tensor(rest)], change[torch.tensor(rest)]
    return out


def kl_to_uniform(features):
    """KL(sigma / sum sigma || 1 / D) of the centred rows [B, D], B < D: B - 1 singular values are not 0."""
    sigma = torch.linalg.svdvals(features - features.mean(0))[: len(features) - 1]
    share = sigma / sigma.sum()
    return (share * torch.log(share * features.shape[1])).sum()


def explained(pairs):
    """The share of the true tokens' variance that is foreseen, over the tokens of all scenes."""
    said, true = (torch.cat(side).detach() for side in zip(*pairs, strict=True))
    return float(1 - ((said - true) ** 2).sum() / ((true - true.mean(0)) ** 2).sum())


def losses(params, target, setting, arrays):
    """The loss, and the metrics: its terms, each scene's own error, and what else is monitored."""
    found, valid = [], arrays["valid"]
    for b in range(given.SCENES):
        scene = dict(
            video=arrays["video"][b], context=arrays["context"][b], removed=arrays["removed"][b],
            objects=arrays["object_patches"][b], hidden=arrays.get("hidden", ~arrays["context"])[b],
            intervened=arrays["intervened"][b] if "intervened" in arrays else None,
        )  # fmt: skip
        found.append(of_scene(params, target, setting, scene))
    counted = [scene for scene, counts in zip(found, valid, strict=True) if counts]
    pooled = torch.stack([scene["pooled"] for scene in counted])
    terms = {
        "prediction": torch.stack([scene["prediction"] for scene in counted]).mean(),
        "sigreg": kl_to_uniform(pooled),
    }
    metrics = {"explained/prediction": explained([scene["pair"] for scene in counted])}
    total = terms["prediction"] + setting.sigreg_weight * terms["sigreg"]
    if setting.causal_weight:
        has = valid & arrays.get("intervened_valid", valid)
        changes = [scene for scene, counts in zip(found, has, strict=True) if counts]
        terms["causal"] = torch.stack([scene["causal"] for scene in changes]).mean()
        total = total + setting.causal_weight * terms["causal"]
        metrics["explained/causal"] = explained([scene["change"] for scene in changes])
    features, width = pooled.detach(), pooled.shape[1]
    kl = float(terms["sigreg"].detach())
    metrics |= {f"loss/{name}": float(term.detach()) for name, term in terms.items()} | {
        "loss": float(total.detach()),
        "loss/sigreg_floor": math.log(width / (len(counted) - 1)),
        "feature_std": float(torch.sqrt(((features - features.mean(0)) ** 2).mean(0)).mean()),
        "rankme": width * math.exp(-kl),
        "context_fraction": float(arrays["context"][valid].mean()),
        "fallback_scenes": int((valid & ~arrays["removed"].any(1)).sum()),
        "per_scene": [scene["own"] for scene in found],
    }
    return total, metrics


def rate_at(step):
    if step < given.WARMUP:
        return given.PEAK * step / given.WARMUP
    share = (step - given.WARMUP) / (given.TOTAL - given.WARMUP)
    return given.PEAK * (1 + math.cos(math.pi * share)) / 2


def momentum_at(step, setting):
    start, end = setting.ema
    share = step / given.TOTAL
    if setting.ema_kind == "linear":
        return start + (end - start) * share
    return end - (end - start) * (1 + math.cos(math.pi * share)) / 2


class Adam:
    """AdamW as published (arXiv 1711.05101, algorithm 2), its schedule apart."""

    def __init__(self, leaves):
        self.mu = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        self.nu = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        self.count = 0

    def step(self, leaves, gradient, rate):
        """Moves the leaves. The Euclidean norm of all moves."""
        self.count += 1
        b1, b2, square = given.ADAM["b1"], given.ADAM["b2"], 0.0
        for name, leaf in leaves.items():
            self.mu[name] = b1 * self.mu[name] + (1 - b1) * gradient[name]
            self.nu[name] = b2 * self.nu[name] + (1 - b2) * gradient[name] ** 2
            mean, variance = self.mu[name] / (1 - b1**self.count), self.nu[name] / (1 - b2**self.count)
            move = mean / (torch.sqrt(variance) + given.ADAM["eps"])
            if name.split("/")[-1] == given.DECAYED:
                move = move + given.ADAM["weight_decay"] * leaf
            square += float(((rate * move) ** 2).sum())
            leaf -= rate * move
        return math.sqrt(square)


def run(setting: Setting) -> list[dict]:
    """What each of the three steps leaves behind: metrics, and every leaf of the state on its direction."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return _steps(setting)
    finally:
        torch.set_default_dtype(before)


def _steps(setting: Setting) -> list[dict]:
    leaves = {name: torch.tensor(x) for name, x in given.parameters(setting, "params").items()}
    target = {name.removeprefix("encoder/"): torch.tensor(x) for name, x in given.parameters(setting, "target").items()
              if name.startswith("encoder/")}  # fmt: skip
    adam, out = Adam(leaves), []
    for step in range(given.FIRST, given.FIRST + given.STEPS):
        for leaf in leaves.values():
            leaf.requires_grad_(True).grad = None
        total, metrics = losses(given.nested(leaves), given.nested(target), setting, given.scenes(setting, step))
        total.backward()
        for leaf in leaves.values():
            leaf.requires_grad_(False)
        gradient = {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in leaves.items()}
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradient.values()))
        if setting.clip and norm > setting.clip:
            gradient = {name: g * setting.clip / norm for name, g in gradient.items()}
        rate, tau = rate_at(step), momentum_at(step, setting)
        moved = adam.step(leaves, gradient, rate)
        for name in target:
            target[name] = tau * target[name] + (1 - tau) * leaves[f"encoder/{name}"]
        metrics |= {"grad_norm": norm, "update_norm": moved, "learning_rate": rate, "ema_momentum": tau}
        state = {"params": leaves, "target": target, "mu": adam.mu, "nu": adam.nu}
        out.append({"metrics": metrics} | {part: given.projected(tree) for part, tree in state.items()})
    return out


def rounded(tree):
    """Nine digits of every number."""
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    return [rounded(value) for value in tree] if isinstance(tree, list) else float(f"{tree:.9g}")


def main():
    results = {name: json.dumps(rounded(run(setting))) for name, setting in given.SETTINGS.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {text}" for name, text in results.items())
    given.GOLDEN.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
