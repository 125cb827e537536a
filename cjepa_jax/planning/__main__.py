"""Plays a world's tasks by planning with a trained world model, next to floors and ceilings.

    python -m cjepa_jax.planning --checkpoint=runs/lewm --env=rooms --episodes=50
    python -m cjepa_jax.planning --env=rooms                       the baselines alone

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

import ast
import dataclasses
import functools
import itertools
import json
import pathlib
import shlex
import sys
import time

from cjepa_jax import cli
from cjepa_jax.errors import ConfigError

ENVIRONMENTS = {"nudge": "Nudge", "push": "Push", "rooms": "Rooms"}
ENV = "rooms, push, nudge, or gym:ID. By default the world that the run was trained on"
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
    if not (chosen.checkpoint or chosen.env):
        raise ConfigError("--checkpoint or --env is missing: name a run's folder, or a world, such as rooms")
    check_env(chosen)
    cli.set_up_logging("warning")
    cli.keep_compiled_code()
    return run(chosen, shlex.join(["python", "-m", "cjepa_jax.planning", *argv]))


def check_env(chosen):
    """Raises ConfigError for an unknown --env, and for flags that do not go together with it."""
    gym = chosen.env.startswith("gym:")
    if chosen.env and not gym and chosen.env not in ENVIRONMENTS:
        raise ConfigError(f"--env={chosen.env}: must be {', '.join(ENVIRONMENTS)} or gym:ID")
    if chosen.agent and gym:
        raise ConfigError(f"--agent: needs a world of this package, not --env={chosen.env}")
    if chosen.ahead != LIMITS["ahead"][0] and not chosen.protocol:
        raise ConfigError(f"--ahead={chosen.ahead}: is for --protocol=published")
    for name in ("task", "vary", "agent"):
        if getattr(chosen, name) and chosen.protocol:
            raise ConfigError(f"--{name}: not with --protocol={chosen.protocol}, whose tasks are recorded ones of Push")
    if chosen.protocol and chosen.checkpoint and chosen.env:
        raise ConfigError(f"--env={chosen.env}: not with --protocol and --checkpoint, whose training gives the tasks")
    if chosen.protocol and chosen.planner == "gradient":
        raise ConfigError("--planner=gradient: not with --protocol, whose search has a deviation for each axis")
    for name in ("goal", "options"):
        if getattr(chosen, name) and not gym:
            raise ConfigError(f"--{name}={getattr(chosen, name)}: is for --env=gym:ID")


def as_json(chosen, name: str) -> dict:
    """The dict that a flag holds as JSON. Raises ConfigError."""
    text = getattr(chosen, name)
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f'--{name}={text}: must be JSON, such as {{"name": [0, 1]}}')
    return found


def settings(chosen):
    """The planning.mpc.MPC that the flags describe. Raises ConfigError."""
    from cjepa_jax.planning import cem, gradient, mppi
    from cjepa_jax.planning.mpc import MPC

    kinds = {"cem": cem.CEM, "icem": cem.ICEM, "mppi": mppi.MPPI, "gradient": gradient.Gradient}
    kind = kinds[chosen.planner]
    known = {field.name for field in dataclasses.fields(kind)}
    given = {name: getattr(chosen, name) for name in ("samples", "elites", "iterations") if name in known}
    planner = kind(**given, std=chosen.std, low=-1.0, high=1.0)
    names = ("horizon", "receding", "over", "batch")
    return MPC(planner, **{name: getattr(chosen, name) for name in names})


def opened(chosen, mpc):
    """The world, name -> (kind, (world, seed) -> policy) of what plays with the network, and facts about it."""
    from cjepa_jax.data.worlds import acting
    from cjepa_jax.evals import control, push_tasks

    gym = chosen.env.startswith("gym:")
    cls = getattr(acting, ENVIRONMENTS[chosen.env]) if chosen.env and not gym else None
    if not chosen.checkpoint:
        world = environment(chosen, chosen.size) if gym else cls(size=chosen.size, split="test")
        push_tasks.require(world, bool(chosen.protocol))
        return world, {}, {"checkpoint": "none"}
    from cjepa_jax.data import assemble
    from cjepa_jax.data.sources.true_slots import TrueSlots
    from cjepa_jax.data.worlds.acting.base import Acting
    from cjepa_jax.evals.gymnasium import Environment
    from cjepa_jax.loading import eval_config
    from cjepa_jax.loading.model import INIT, Restored
    from cjepa_jax.objectives.base import Imitator, World
    from cjepa_jax.objectives.slots import Slots
    from cjepa_jax.planning.mpc import WorldModel
    from cjepa_jax.runtime import foreign

    path, trust = str(chosen.checkpoint), foreign.trusted(chosen.trust)
    config = eval_config.of_checkpoint(path, trust)
    if config is None:
        raise ConfigError(f"--checkpoint={path}: must be a run's folder")
    restored = Restored.of(config, path, trust)
    objective, source = restored.objective, assemble.make_source(config, "train")
    slots = isinstance(objective, Slots)
    world = dataclasses.replace(source.source, size=chosen.size) if isinstance(source, TrueSlots) else source
    mpc = slots_mpc(chosen, source, objective, mpc) if slots else mpc
    if not (slots or isinstance(objective, World | Imitator)):
        text = f"{type(objective).__name__} does not predict the next latent, and does not act"
        raise ConfigError(f"--checkpoint={path}: {text}")
    if gym:
        world = environment(chosen, config.data.size, world, objective)
    elif cls and not isinstance(world, cls):
        world = cls(size=config.data.size)
    if not isinstance(world, Acting | Environment):
        raise ConfigError(f"--checkpoint={path}: {type(world).__name__} has no actions: name a world with --env")
    mpc = push_tasks.scaled(mpc, world) if chosen.protocol else mpc
    about = {"checkpoint": f"{path}, step {restored.about['step']}", **described(mpc, world)}
    fits_planner(chosen, objective)
    if chosen.agent:
        return world, *agents(chosen, mpc, world, restored, about)
    states = {"trained": ("result", restored.state)}
    states |= {f"random init {i}": ("floor", restored.fresh(INIT + i)) for i in range(chosen.inits)}
    if isinstance(objective, Imitator):
        made = {name: (kind, imitating(chosen, objective, state, world)) for name, (kind, state) in states.items()}
        return world, made, about

    def player(state):
        if slots:
            given = dict(params=state.params, mpc=mpc, memory=1 if chosen.protocol else objective.history)
            return lambda own, seed: control.by_slots(own, source, objective, **given, seed=seed)
        of, memory = (objective.latents, objective.predict), getattr(objective, "history", 1)
        model = WorldModel.of(*of, state.params, state.extra, memory)
        return lambda own, seed: control.by_model(own, model, mpc, seed)

    return world, {name: (kind, player(state)) for name, (kind, state) in states.items()}, about


def fits_planner(chosen, objective) -> None:
    """Raises ConfigError for a world model that the planner alone cannot use."""
    from cjepa_jax.objectives.remembering import Remembering
    from cjepa_jax.objectives.world import World

    where = f"--checkpoint={chosen.checkpoint}"
    if isinstance(objective, World) and objective.proprio:
        raise ConfigError(f"{where}: objective.proprio = True: nothing here predicts the agent's state, which it needs")
    if isinstance(objective, Remembering) and not chosen.agent:
        raise ConfigError(f"{where}: its memory of the first frames is the agent's: add --agent")


def described(mpc, world) -> dict[str, str]:
    """Facts about the search, for the report."""
    own = dataclasses.replace(mpc, block=getattr(world, "stride", mpc.block))
    return {"planning": f"{own}", "distance": mpc.distance.__name__}


def slots_mpc(chosen, source, objective, mpc):
    """`mpc` with the distance of matched slots. Raises ConfigError for a slot predictor that cannot plan: without
    actions, or with slots that are not true states of a world with actions."""
    from cjepa_jax.data.sources.true_slots import TrueSlots
    from cjepa_jax.data.worlds.acting.base import Acting
    from cjepa_jax.planning.costs import matched

    where = f"--checkpoint={chosen.checkpoint}"
    if "action" not in objective.auxiliary:
        raise ConfigError(f"{where}: objective.auxiliary = {objective.auxiliary!r} has no 'action': it cannot plan")
    if chosen.env:
        raise ConfigError(f"--env={chosen.env}: a model of slots plays in the world that it was trained on")
    if not isinstance(source, TrueSlots) or not isinstance(source.source, Acting):
        raise ConfigError(f"{where}: {type(source).__name__} gives no slots of a world with actions")
    return dataclasses.replace(mpc, distance=matched(source.slots))


def environment(chosen, size, source=None, objective=None):
    """The environment that --env=gym:ID names, with the actions of the data that the model was trained on. Raises
    ConfigError."""
    from cjepa_jax.data.worlds.acting.base import Acting
    from cjepa_jax.evals.gymnasium import Environment
    from cjepa_jax.objectives.base import World

    recorded = getattr(source, "kind", "") == "episodes" and not isinstance(source, Acting)
    if source is not None and not (isinstance(objective, World) and recorded):
        text = f"{type(objective).__name__} of {type(source).__name__}"
        text = f"is {text}. --env={chosen.env} needs a world model that was trained on recorded episodes"
        raise ConfigError(f"--checkpoint={chosen.checkpoint}: {text}")
    goal = as_json(chosen, "goal") if chosen.goal.startswith("{") else chosen.goal
    options = as_json(chosen, "options") if chosen.options else {}
    stride, (mean, deviation) = getattr(source, "stride", 1), getattr(source, "spread", (0.0, 1.0))
    own = dict(goal=goal, size=size, options=options, stride=stride, mean=mean, deviation=deviation)
    world = Environment(chosen.env.removeprefix("gym:"), **own)
    needed = stride * world.action_size
    if source is not None and (given := source[0]["actions"].shape[-1]) != needed:
        text = f"an action has {given} components in the run, {needed} in {chosen.env}"
        raise ConfigError(f"--checkpoint={chosen.checkpoint}: {text}")
    return world


def imitating(chosen, objective, state, world):
    """(world, seed) -> policy of an objective that acts. Raises ConfigError for one that does not fit the world."""
    import jax

    from cjepa_jax.evals import control

    if chosen.receding > objective.chunk:
        raise ConfigError(f"--receding={chosen.receding}: must be at most objective.chunk = {objective.chunk}")
    actions, own = objective.sizes(state.params)
    for what, given, needed in (
        ("an action", actions, world.action_size),
        ("the agent's state", own, len(world.proprio_names) if own else 0),
    ):
        if given != needed:
            text = f"{what} has {given} components in the run, {needed} in {type(world).__name__}"
            raise ConfigError(f"--checkpoint={chosen.checkpoint}: {text}")
    act = jax.jit(objective.act)
    actions = functools.partial(act, state.params)
    return lambda world, seed: control.Imitated(world, actions, chosen.receding, objective.proprio)


def variation(world, text: str):
    """The world with one option changed, "NAME=VALUE". Raises ConfigError."""
    from cjepa_jax.data.worlds.acting.base import Acting
    from cjepa_jax.evals.gymnasium import Environment

    name, _, value = text.partition("=")
    try:
        option = ast.literal_eval(value)
    except (TypeError, ValueError, SyntaxError, MemoryError, RecursionError) as error:  # TypeError: "{[]: 1}"
        raise ConfigError(f"--vary={text}: the value must be a number, a word in quotes, or a tuple") from error
    if isinstance(world, Environment):
        return dataclasses.replace(world, options={**world.options, name: option})
    own = {field.name for field in dataclasses.fields(world)} - {field.name for field in dataclasses.fields(Acting)}
    if name not in own:
        raise ConfigError(f"--vary={text}: {type(world).__name__} has {', '.join(sorted(own))}")
    return dataclasses.replace(world, **{name: option})


def worlds_of(chosen, world) -> dict:
    """What a row's name ends with -> the world it is played in: the world itself, and one per --vary. Raises
    ConfigError."""
    return {"": world} | {f" ({text})": variation(world, text) for text in chosen.vary}


def task_of(chosen, world) -> str:
    """The kind of task. Raises ConfigError."""
    task = chosen.task or world.tasks[0]
    if task not in world.tasks:
        raise ConfigError(f"--task={task}: {type(world).__name__} has {', '.join(world.tasks)}")
    return task


def agents(chosen, mpc, world, restored, about):
    """name -> (kind, (world, seed) -> policy) of the agent and its ablations, and facts about it."""
    from cjepa_jax.evals import agent, control
    from cjepa_jax.planning.agent import Modules

    if not hasattr(restored.objective, "memory"):
        raise ConfigError(f"--agent: {type(restored.objective).__name__} is not a world model of this package")
    for refused in (task_of, worlds_of):
        refused(chosen, world)  # before minutes of learning
    if chosen.over != "sum":
        raise ConfigError(f"--over={chosen.over}: the agent's cost is a sum over all steps")
    if restored.objective.latent == "tokens":
        raise ConfigError("--agent: objective.latent = 'tokens': its critic needs one vector for an image")
    modules = Modules.of(restored.objective, restored.state.params, restored.state.extra)
    counts = dict(episodes=chosen.experience, plans=chosen.plans, steps=chosen.steps, task=task_of(chosen, world))
    learned = agent.learn(world, modules, mpc, seed=chosen.seed, **counts)

    def player(own, mode):
        return lambda world, seed: control.by_agent(world, own, mpc, seed, mode)

    scores = ", ".join(f"{name} {value:.3f}" for name, value in learned.scores.items())
    about |= {"critic": f"R2 of the costs that follow: {scores}", "experience": f"{chosen.experience} tasks"}
    return {name: ("result", player(*made)) for name, made in learned.players.items()}, about


def run(chosen, command: str) -> int:
    """Plays all policies. See `main`."""
    import jax
    from tqdm import tqdm

    from cjepa_jax import __version__
    from cjepa_jax.evals import control, push_tasks
    from cjepa_jax.reports import control as page
    from cjepa_jax.runtime.workdir import Workdir

    mpc = settings(chosen)
    world, models, about = opened(chosen, mpc)
    task = "recorded" if chosen.protocol else task_of(chosen, world)
    source = push_tasks.recorded(world) if chosen.protocol else control.drawn_from(world, chosen.seed, chosen.episodes)
    left_out = (control.SIMULATOR,) if chosen.protocol else ()  # it would take an hour per seed
    rows: dict[str, list] = {}
    films, seeds = {}, range(chosen.seed, chosen.seed + chosen.seeds)
    worlds = worlds_of(chosen, world)
    policies = len(control.baselines(world, mpc, 0)) + len(models) - len(left_out)
    with tqdm(total=len(worlds) * policies * chosen.seeds * chosen.steps, unit="frame", mininterval=1) as bar:
        for seed, (where, one) in itertools.product(seeds, worlds.items()):
            own = control.drawn_from(one, seed, chosen.episodes)
            if chosen.protocol:
                tasks = push_tasks.drawn(one, seed, chosen.episodes, chosen.ahead)
            else:
                tasks = control.draw_tasks(own, task, chosen.episodes)
            players = {name: (kind, made(own, seed)) for name, (kind, made) in models.items()}
            players |= {name: row for name, row in control.baselines(own, mpc, seed).items() if name not in left_out}
            for name, (kind, policy) in players.items():
                bar.set_description(f"seed {seed}, {name}{where}")
                started = time.perf_counter()
                trials = control.play(own, tasks, policy, chosen.steps, bar.update)
                spent, name = time.perf_counter() - started, name + where
                old = rows.get(name, [kind, 0, 0, 0, 0.0])
                add = (chosen.episodes, int(trials.once.sum()), int(trials.end.sum()), spent)
                rows[name] = [kind, *(a + b for a, b in zip(old[1:], add, strict=True))]
                if name not in films:
                    films[name] = page.film(list(control.films(own, tasks, trials)))
    table = [control.Row(name, kind, task, *counts) for name, (kind, *counts) in rows.items()]
    about = described(mpc, world) | about | {
        "world": f"{source}",
        "command": command, "seeds": ", ".join(map(str, seeds)), "frames": str(chosen.steps),
        "devices": f"1 x {jax.devices()[0].device_kind} ({jax.default_backend()})",
        "version": f"{__version__}, jax {jax.__version__}",
    }  # fmt: skip
    about |= {"tasks": f"frames of training's episodes, {chosen.ahead} apart"} if chosen.protocol else {}
    default = pathlib.Path(chosen.checkpoint, "control") if chosen.checkpoint else pathlib.Path("runs/control")
    with Workdir(chosen.workdir or default) as folder:
        print(page.as_text(table))
        if "critic" in about:
            print(f"critic: {about['critic']}")
        print(f"report: {page.write(folder.path, about, table, films)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(cli.guard(lambda: main(sys.argv[1:])))
