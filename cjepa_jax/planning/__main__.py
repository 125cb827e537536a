"""Plays a world's tasks by planning with a trained world model, next to floors and ceilings.

    python -m cjepa_jax.planning --checkpoint=runs/lewm --env=rooms --episodes=50
    python -m cjepa_jax.planning --env=rooms                       the baselines alone
    python -m cjepa_jax.planning --checkpoint=runs/pusht --encoder=runs/savi      a predictor of an encoder's slots

--vary=NAME=VALUE adds rows of the world with one option changed: a factor of variation that training never saw.
--agent plays the agent of LeCun (2022) instead: its planner with a trained critic, its distilled policy, and both
ablations (docs/PLANNING.md).

--checkpoint names the run of an objective that predicts the next latent (objectives.base.World), or of one that acts
itself (objectives.base.Imitator). The imitator executes the first --receding of its predicted actions, and needs no
planner. --env is rooms, push, nudge, or gym:ID: an environment of Gymnasium, for a world model of its own episodes.
Without it, the world is the one that the run was trained on. Tasks are those of the split "test". All policies play the
same ones: the trained model, doing nothing, random actions, a straight line, the same planner with random
initialisations of the network, and with the true simulator. Gymnasium's environments have no straight line and no true
simulator. --workdir gets results.json, films and report.html (default: RUN/control, or runs/control). Exit codes: 2 for
the command line, 4 for unusable weights.
"""

import dataclasses
import itertools
import pathlib
import re
import shlex
import sys
import time

from cjepa_jax import cli
from cjepa_jax.errors import ConfigError
from cjepa_jax.planning import players

ENV = "rooms, push, nudge, or gym:ID. By default the world that the run was trained on"
ENCODER = "of a slot predictor: what made the slots on which it was trained, a run or weights as extract takes them"
BACKBONE = "DINOv2's folder, for an --encoder of weights that do not hold it"
GOAL = "of --env=gym:ID: options of the reset that shows the goal, as JSON, or a file of episodes that end there"
OPTIONS = "of --env=gym:ID: keyword arguments of gymnasium.make, as JSON"
PROTOCOL = "published: Push-T as in arXiv 2602.11389. Other flags that are given count"
VARY = "play also in the world with this option changed, such as speed=0.05. May be repeated"
LIMITS = {  # flag -> default, least, most, help
    "episodes": (50, 1, 10_000, "tasks per seed"),
    "seeds": (1, 1, 100, "seeds of tasks and of planning. Their episodes are counted together"),
    "seed": (1000, 0, 2**31, "the first seed"),
    "steps": (50, 1, 10_000, "frames of an episode"),
    "inits": (1, 0, 20, "random initialisations of the network that plan too"),
    "experience": (400, 10, 100_000, "tasks from which the agent's critic learns (--agent)"),
    "plans": (600, 10, 100_000, "plans from which the agent's policy learns (--agent)"),
    "size": (64, 8, 1024, "pixels of the films without a checkpoint"),
    "horizon": (12, 1, 1000, "planned actions"),
    "receding": (1, 1, 1000, "actions that are done before the next plan"),
    "samples": (128, 2, 100_000, "candidates per iteration"),
    "elites": (16, 2, 100_000, "best candidates (cem, icem, mppi)"),
    "iterations": (8, 1, 10_000, "iterations of a search"),
    "ahead": (24, 1, 49, "frames from a start to its goal, of --protocol=published"),  # its code takes the last of 25
    "batch": (0, 0, 10_000, "environments that are searched at a time. 0: all. Memory is proportional to it"),
}


def main(argv: list[str]) -> int:
    """Plays and writes the report. Raises ConfigError, DataError or CheckpointError, one line each."""
    parser = cli.Parser(prog="python -m cjepa_jax.planning", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=cli.path_argument, metavar="RUN", help="a run's folder")
    parser.add_argument("--encoder", type=cli.path_argument, metavar="RUN", help=ENCODER)
    parser.add_argument("--backbone", type=cli.path_argument, metavar="DIR", help=BACKBONE)
    parser.add_argument("--env", default="", help=ENV)
    parser.add_argument("--goal", default="", help=GOAL)
    parser.add_argument("--options", default="", metavar="JSON", help=OPTIONS)
    parser.add_argument("--task", default="", help="a kind of task (rooms: door, room, any)")
    parser.add_argument("--planner", choices=("cem", "icem", "mppi", "gradient"), default="cem")
    parser.add_argument("--over", choices=("last", "sum"), default="sum", help="the cost: last state, or sum over all")
    parser.add_argument("--std", type=float, default=1.0, help="of the first candidates' actions (default: 1)")
    parser.add_argument("--protocol", choices=("published",), help=PROTOCOL)
    parser.add_argument("--vary", action="append", default=[], metavar="NAME=VALUE", help=VARY)
    parser.add_argument("--agent", action="store_true", help="critic, policy and memory beside the planner")
    parser.add_argument("--workdir", type=cli.path_argument, metavar="DIR")
    parser.add_argument("--trust", default="", metavar="PACKAGES", help=cli.TRUST)
    for name, (default, _, _, text) in LIMITS.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default: {default})")
    chosen = parser.parse_args(argv)
    if chosen.protocol:
        from cjepa_jax.evals import push_tasks

        parser.set_defaults(**push_tasks.SETTINGS)
        chosen = parser.parse_args(argv)
    for name, (_, least, most, _) in LIMITS.items():
        if not least <= getattr(chosen, name) <= most:
            raise ConfigError(f"--{name}={getattr(chosen, name)}: must be within {least} and {most}")
    if not 0 < chosen.std <= 10:
        raise ConfigError(f"--std={chosen.std}: must be above 0 and at most 10")
    if chosen.agent and not chosen.checkpoint:
        raise ConfigError("--agent: name a run's folder with --checkpoint")
    if chosen.encoder and not chosen.checkpoint:
        raise ConfigError(f"--encoder={chosen.encoder}: name the run of a slot predictor with --checkpoint")
    if chosen.encoder and chosen.size != LIMITS["size"][0]:
        raise ConfigError(f"--size={chosen.size}: not with --encoder, which decides the size of frames")
    if chosen.backbone and not chosen.encoder:
        raise ConfigError(f"--backbone={chosen.backbone}: is for --encoder")
    if not (chosen.checkpoint or chosen.env):
        raise ConfigError("--checkpoint or --env is missing: name a run's folder, or a world, such as rooms")
    check_env(chosen)
    cli.set_up_logging("warning")
    cli.keep_compiled_code()
    return run(chosen, shlex.join(["python", "-m", "cjepa_jax.planning", *argv]))


def check_env(chosen):
    """Raises ConfigError for an unknown --env, and for flags that do not go together with it."""
    gym = chosen.env.startswith("gym:")
    if chosen.env and not gym and chosen.env not in players.ENVIRONMENTS:
        raise ConfigError(f"--env={chosen.env}: must be {', '.join(players.ENVIRONMENTS)} or gym:ID")
    if chosen.agent and gym:
        raise ConfigError(f"--agent: needs a world of this package, not --env={chosen.env}")
    if chosen.ahead != LIMITS["ahead"][0] and not chosen.protocol:
        raise ConfigError(f"--ahead={chosen.ahead}: is for --protocol=published")
    for name in ("task", "vary", "agent"):
        if getattr(chosen, name) and chosen.protocol:
            raise ConfigError(f"--{name}: not with --protocol={chosen.protocol}, whose tasks are recorded ones of Push")
    if chosen.protocol and chosen.checkpoint and chosen.env and not chosen.encoder:
        raise ConfigError(f"--env={chosen.env}: not with --protocol and --checkpoint, whose training gives the tasks")
    if chosen.protocol and chosen.planner == "gradient":
        raise ConfigError("--planner=gradient: not with --protocol, whose search has a deviation for each axis")
    for name in ("goal", "options"):
        if getattr(chosen, name) and not gym:
            raise ConfigError(f"--{name}={getattr(chosen, name)}: is for --env=gym:ID")


def settings(chosen):
    """The planning.mpc.MPC that the flags describe. Raises ConfigError."""
    from cjepa_jax.planning import cem, gradient, mppi
    from cjepa_jax.planning.mpc import MPC

    kinds = {"cem": cem.CEM, "icem": cem.ICEM, "mppi": mppi.MPPI, "gradient": gradient.Gradient}
    kind = kinds[chosen.planner]
    known = {field.name for field in dataclasses.fields(kind)}
    given = {name: getattr(chosen, name) for name in ("samples", "elites", "iterations") if name in known}
    names = ("horizon", "receding", "over", "batch")
    try:
        planner = kind(**given, std=chosen.std, low=-1.0, high=1.0)
        return MPC(planner, **{name: getattr(chosen, name) for name in names})
    except ConfigError as error:  # in the words of the command line
        raise ConfigError(re.sub(r"(?:planner|mpc)\.(\w+)(?: is | = )", r"--\1=", str(error))) from error


def run(chosen, command: str) -> int:
    """Plays all policies. See `main`."""
    import jax

    from cjepa_jax import __version__
    from cjepa_jax.evals import control, push_tasks
    from cjepa_jax.reports import control as page
    from cjepa_jax.runtime.workdir import Workdir, run_folder

    world, mpc, make = players.opened(chosen, settings(chosen))
    task = "recorded" if chosen.protocol else players.task_of(chosen, world)
    source = push_tasks.recorded(world) if chosen.protocol else control.drawn_from(world, chosen.seed, chosen.episodes)
    worlds, seeds = players.worlds_of(chosen, world), range(chosen.seed, chosen.seed + chosen.seeds)
    of = pathlib.Path(chosen.checkpoint or "runs")
    where = chosen.workdir or (run_folder(of) or of) / "control"
    with Workdir(where, setting="--workdir=") as folder:  # before minutes of learning and hours of play
        models, about = make()
        rows, films = played(chosen, worlds, models, mpc=mpc, task=task, seeds=seeds)
        table = [control.Row(name, kind, task, *counts) for name, (kind, *counts) in rows.items()]
        about = players.described(mpc, world) | about | {
            "world": f"{source}",
            "command": command, "seeds": ", ".join(map(str, seeds)), "frames": str(chosen.steps),
            "devices": f"1 x {jax.devices()[0].device_kind} ({jax.default_backend()})",
            "version": f"{__version__}, jax {jax.__version__}",
        }  # fmt: skip
        about |= {"tasks": f"frames of training's episodes, {chosen.ahead} apart"} if chosen.protocol else {}
        print(page.as_text(table))
        if "critic" in about:
            print(f"critic: {about['critic']}")
        print(f"report: {page.write(folder.path, about, table, films)}")
    return 0


def played(chosen, worlds: dict, models: dict, mpc, task: str, seeds: range) -> tuple[dict[str, list], dict]:
    """Row's name -> [kind, episodes, successes once, at the end, seconds], and -> its film, of all worlds and seeds."""
    from tqdm import tqdm

    from cjepa_jax.evals import control, push_tasks
    from cjepa_jax.reports import control as page

    left_out = (control.SIMULATOR,) if chosen.protocol else ()  # it would take an hour per seed
    rows: dict[str, list] = {}
    films = {}
    policies = len(control.baselines(worlds[""], mpc, 0)) + len(models) - len(left_out)
    with tqdm(total=len(worlds) * policies * chosen.seeds * chosen.steps, unit="frame", mininterval=1) as bar:
        for seed, (where, one) in itertools.product(seeds, worlds.items()):
            own = control.drawn_from(one, seed, chosen.episodes)
            if chosen.protocol:
                tasks = push_tasks.drawn(one, seed, chosen.episodes, chosen.ahead)
            else:
                tasks = control.draw_tasks(own, task, chosen.episodes)
            all_of_them = {name: (kind, made(own, seed)) for name, (kind, made) in models.items()}
            all_of_them |= {n: row for n, row in control.baselines(own, mpc, seed).items() if n not in left_out}
            for name, (kind, policy) in all_of_them.items():
                bar.set_description(f"seed {seed}, {name}{where}")
                started = time.perf_counter()
                trials = control.play(own, tasks, policy, chosen.steps, bar.update)
                spent, name = time.perf_counter() - started, name + where
                old = rows.get(name, [kind, 0, 0, 0, 0.0])
                add = (chosen.episodes, int(trials.once.sum()), int(trials.end.sum()), spent)
                rows[name] = [kind, *(a + b for a, b in zip(old[1:], add, strict=True))]
                if name not in films:
                    films[name] = page.film(list(control.films(own, tasks, trials)))
    return rows, films


if __name__ == "__main__":
    raise SystemExit(cli.guard(lambda: main(sys.argv[1:])))
