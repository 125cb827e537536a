"""Who plays with `python -m cjepa_jax.planning`: the world, and the policies of the run that --checkpoint names.

`chosen` is what the command line says. Nothing is imported before a command line is known to be right.
"""

import ast
import dataclasses
import functools
import json

from cjepa_jax.errors import ConfigError

ENVIRONMENTS = {"nudge": "Nudge", "push": "Push", "rooms": "Rooms"}


def opened(chosen, mpc):
    """The world, the planner's settings for it, and a function that makes the players: () -> (name -> (kind, (world,
    seed) -> policy) of what plays with the network, facts about them). The agent learns in it, which takes minutes."""
    from cjepa_jax.evals import control, push_tasks

    gym = chosen.env.startswith("gym:")
    if not chosen.checkpoint:
        world = environment(chosen, chosen.size) if gym else named(chosen)(size=chosen.size, split="test")
        push_tasks.require(world, bool(chosen.protocol))
        return world, mpc, lambda: ({}, {"checkpoint": "none"})
    from cjepa_jax.data import assemble
    from cjepa_jax.data.sources.true_slots import TrueSlots
    from cjepa_jax.loading import eval_config
    from cjepa_jax.loading.model import INIT, Restored
    from cjepa_jax.objectives.base import Imitator, World
    from cjepa_jax.objectives.slots import Slots
    from cjepa_jax.planning.mpc import WorldModel
    from cjepa_jax.runtime import foreign

    path, trust = str(chosen.checkpoint), foreign.trusted(chosen.trust)
    config = eval_config.of_checkpoint(path, trust)
    if config is None:
        text = "must be a run's folder. Of released weights a run is made by train --config.init_from"
        raise ConfigError(f"--checkpoint={path}: {text}")
    restored = Restored.of(config, path, trust)
    objective, source = restored.objective, assemble.make_source(config, "train")
    slots, playing = isinstance(objective, Slots), encoding(chosen, source, objective)
    world = dataclasses.replace(source.source, size=chosen.size) if isinstance(source, TrueSlots) else source
    world, mpc = playing.world if playing else world, slots_mpc(chosen, source, objective, mpc) if slots else mpc
    if not (slots or isinstance(objective, World | Imitator)):
        text = f"--checkpoint={path}: {type(objective).__name__}"
        raise ConfigError(f"{text} does not predict the next latent, and does not act")
    recorded, given = None, world
    if gym:
        world = environment(chosen, config.data.size, world, objective)
    else:
        world = world_of(chosen, world, config.data.size)
        if isinstance(objective, World) and not isinstance(getattr(given, "simulator", given), type(world)):
            recorded, mpc = given, dataclasses.replace(mpc, block=block_of(chosen, given, world))
    mpc = push_tasks.scaled(mpc, world) if chosen.protocol else mpc
    encoder = {"encoder": playing.encoder.about} if playing else {}
    about = {"checkpoint": f"{path}, step {restored.about['step']}"} | encoder
    fits_planner(chosen, objective)
    if chosen.agent:
        return world, mpc, agents(chosen, mpc, world, restored, about)
    fresh = {f"random init {i}": ("floor", restored.fresh(INIT + i)) for i in range(chosen.inits)}
    states = {"trained": ("result", restored.state)} | fresh
    if isinstance(objective, Imitator):
        policy = functools.partial(imitating, chosen, objective, world=world, source=source)
        made = {name: (kind, policy(state)) for name, (kind, state) in states.items()}
        return world, mpc, lambda: (made, about)

    def player(state):
        if slots:
            return slots_player(chosen, source, objective, state.params, mpc=mpc, playing=playing)
        of, memory = (objective.latents, objective.predict), getattr(objective, "history", 1)
        model = WorldModel.of(*of, state.params, state.extra, memory)
        return lambda own, seed: control.by_model(own, model, mpc, seed, recorded)

    return world, mpc, lambda: ({name: (kind, player(state)) for name, (kind, state) in states.items()}, about)


def slots_player(chosen, source, objective, params, *, mpc, playing):
    """(world, seed) -> policy of a slot predictor. playing: what `encoding` has found."""
    from cjepa_jax.evals import slot_control

    given = dict(mpc=mpc, memory=1 if chosen.protocol else objective.history)
    encoder = playing.encoder if playing else None
    return lambda own, seed: slot_control.by_slots(own, source, objective, params, **given, encoder=encoder, seed=seed)


def named(chosen):
    """The class of the world that --env names, None without --env."""
    from cjepa_jax.data.worlds import acting

    return getattr(acting, ENVIRONMENTS[chosen.env]) if chosen.env else None


def world_of(chosen, source, size):
    """The world to play in: the one that the run was trained on, or for recorded episodes the one that --env names.
    Raises ConfigError."""
    from cjepa_jax.data.worlds.acting.base import Acting

    cls, own = named(chosen), getattr(source, "simulator", source)  # of materialised episodes, the world behind them
    if isinstance(own, Acting) and cls and not isinstance(own, cls):
        text = f"the run of --checkpoint was trained on {type(own).__name__}, whose options --vary can change"
        raise ConfigError(f"--env={chosen.env}: {text}")
    if (stored := getattr(source, "stored_size", size)) != size and (cls or isinstance(own, Acting)):
        text = f"the run has data.size = {size}, its stored frames have {stored}: must be equal here"
        text = f"{text}, because a world that draws at {size} shows other pictures than reduced ones"
        raise ConfigError(f"--checkpoint={chosen.checkpoint}: {text}")
    world = own if isinstance(own, Acting) or not cls else cls(size=size)
    if not isinstance(world, Acting):
        text = f"{type(own).__name__} has no actions: name a world with --env"
        raise ConfigError(f"--checkpoint={chosen.checkpoint}: {text}")
    return world


def stride_of(chosen, source, world) -> int:
    """Frames of one action of a source of recorded episodes. Raises ConfigError if its actions are not the world's."""
    stride = getattr(source, "stride", 1)
    needed = stride * world.action_size
    if (given := source[0]["actions"].shape[-1]) != needed:
        text = f"an action has {given} components in the run, {needed} in {chosen.env}"
        raise ConfigError(f"--checkpoint={chosen.checkpoint}: {text}")
    return stride


def block_of(chosen, source, world) -> int:
    """Frames of one planned action of a world model of recorded episodes, in a world. Raises ConfigError."""
    from cjepa_jax.planning.mpc import MOST_FRAMES

    stride, standardise = stride_of(chosen, source, world), getattr(source, "standardise", False)
    if chosen.agent and (stride > 1 or standardise):
        text = f"the run's episodes have stride = {stride} and standardise = {standardise}: must be 1 and False"
        raise ConfigError(f"--agent: {text}")
    if chosen.horizon * stride > MOST_FRAMES:
        text = f"must be at most {MOST_FRAMES // stride}, because an action of the run is {stride} frames"
        raise ConfigError(f"--horizon={chosen.horizon}: {text}")
    return stride


def fits_planner(chosen, objective) -> None:
    """Raises ConfigError for a world model that the planner alone cannot use."""
    from cjepa_jax.objectives.remembering import Remembering
    from cjepa_jax.objectives.world import World

    where = f"--checkpoint={chosen.checkpoint}"
    if isinstance(objective, World) and objective.proprio:
        text = "nothing here predicts the agent's state, which it needs: train with --config.objective.proprio=False"
        raise ConfigError(f"{where}: objective.proprio = True: {text}")
    if isinstance(objective, Remembering) and not chosen.agent:
        raise ConfigError(f"{where}: its memory of the first frames is the agent's: add --agent")


def described(mpc, world) -> dict[str, str]:
    """Facts about the search, for the report."""
    own = dataclasses.replace(mpc, block=getattr(world, "stride", mpc.block))
    return {"planning": f"{own}", "distance": mpc.distance.__name__}


def encoding(chosen, source, objective):
    """The encoder of a slot predictor and its world (planning.slot_encoder.Playing). None for other runs. Raises
    ConfigError."""
    from cjepa_jax.data.sources.slot_files import SlotFiles
    from cjepa_jax.objectives.slots import Slots
    from cjepa_jax.planning import slot_encoder

    if not isinstance(objective, Slots) or not (chosen.encoder or isinstance(source, SlotFiles)):
        if chosen.encoder:
            text = f"is for a slot predictor, not for {type(objective).__name__}"
            raise ConfigError(f"--encoder={chosen.encoder}: {text}")
        return None
    if chosen.env.startswith("gym:"):
        raise ConfigError(f"--env={chosen.env}: a model of slots plays in a world of this package")
    require_actions(chosen, objective)
    return slot_encoder.opened(chosen, source, objective, ENVIRONMENTS.get(chosen.env))


def require_actions(chosen, objective):
    """Raises ConfigError for a slot predictor without actions."""
    if "action" not in objective.auxiliary:
        text = f"objective.auxiliary = {objective.auxiliary!r} has no 'action': it cannot plan"
        raise ConfigError(f"--checkpoint={chosen.checkpoint}: {text}")


def slots_mpc(chosen, source, objective, mpc):
    """`mpc` with the distance of matched slots, in blocks of the run. Raises ConfigError for a slot predictor that
    cannot plan: without actions, or with slots that are neither an encoder's nor true states of a world with actions.
    """
    from cjepa_jax.data.sources.slot_files import SlotFiles
    from cjepa_jax.data.sources.true_slots import TrueSlots
    from cjepa_jax.data.worlds.acting.base import Acting
    from cjepa_jax.planning import slot_encoder
    from cjepa_jax.planning.costs import matched

    where = f"--checkpoint={chosen.checkpoint}"
    require_actions(chosen, objective)
    if isinstance(source, SlotFiles):
        return dataclasses.replace(slot_encoder.blocks(chosen, source, mpc), distance=matched(source.slots))
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
    if source is not None:
        stride_of(chosen, source, world)
    return world


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


def imitating(chosen, objective, state, world, source=None):
    """(world, seed) -> policy of an objective that acts, whose actions are in the units of `source`. Raises ConfigError
    for one that does not fit the world."""
    import jax
    import numpy as np

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
    act, (mean, deviation) = jax.jit(objective.act), getattr(source, "spread", (0.0, 1.0))

    def actions(*seen):
        return mean + deviation * np.asarray(act(state.params, *seen))

    return lambda world, seed: control.Imitated(world, actions, chosen.receding, objective.proprio)


def agents(chosen, mpc, world, restored, about):
    """What makes the agent and its ablations, as `opened` gives it. Raises ConfigError for what cannot learn."""
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

    def player(own, mode):
        return lambda world, seed: control.by_agent(world, own, mpc, seed, mode)

    def learn():
        learned = agent.learn(world, modules, mpc, seed=chosen.seed, **counts)
        scores = ", ".join(f"{name} {value:.3f}" for name, value in learned.scores.items())
        facts = {"critic": f"R2 of the costs that follow: {scores}", "experience": f"{chosen.experience} tasks"}
        return {name: ("result", player(*made)) for name, made in learned.players.items()}, about | facts

    return learn


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
