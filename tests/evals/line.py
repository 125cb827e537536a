"""A small Gymnasium environment: a bright column that actions move to the right end of a line."""

import gymnasium
import numpy as np

SIDE = 16


class Line(gymnasium.Env):
    """The action 2 rests, 0 and 4 move by a tenth of the line to the left and to the right.

    Success is a place within a tenth of `end`. Beyond 1.2 the episode is over, and within `end` too if `ends`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None, shows=False, flags=True, end=0.8, ends=True, box=None):
        self.render_mode, self.shows, self.flags, self.end, self.ends = render_mode, shows, flags, end, ends
        self.action_space = box or gymnasium.spaces.Box(0.0, 4.0, (1,))
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (1,))
        self.closed = False

    def _picture(self, place):
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        image[:, int(np.clip(place, 0, 0.999) * SIDE)] = 255
        return image

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.place = (options or {}).get("place", self.np_random.uniform(0, 0.4))
        return np.array([self.place], np.float32), {"goal": self._picture(self.end)} if self.shows else {}

    def step(self, action):
        self.place += 0.05 * (float(action[0]) - 2)
        success = abs(self.place - self.end) < 0.1
        over = self.place > 1.2 or (success and self.ends)
        info = {"is_success": success} if self.flags else {}
        return np.array([self.place], np.float32), 0.0, over, False, info

    def render(self):
        return self._picture(self.place)

    def close(self):
        self.closed = True


gymnasium.register("Line-v0", Line)
gymnasium.register("Steps-v0", Line, kwargs={"box": gymnasium.spaces.Discrete(2)})
gymnasium.register("Plane-v0", Line, kwargs={"box": gymnasium.spaces.Box(0.0, 4.0, (2,))})
gymnasium.register("Endless-v0", Line, kwargs={"box": gymnasium.spaces.Box(-np.inf, np.inf, (1,))})


class Blind(Line):
    """One that cannot be seen."""

    metadata = {"render_modes": []}


gymnasium.register("Blind-v0", Blind)


class Broken(Line):
    """One that cannot be drawn, as where the package that draws is missing, or whose simulation fails."""

    def __init__(self, part="render", **options):
        super().__init__(shows=True, **options)
        self.part = part

    def render(self):
        if self.part == "render":
            raise RuntimeError("no\ndisplay")
        return super().render()

    def step(self, action):
        raise RuntimeError("no\nforce")


class Restless(Line):
    """One that does not draw its start from the seed of the reset."""

    resets = 0

    def reset(self, seed=None, options=None):
        Restless.resets += 1
        return super().reset(seed=Restless.resets, options=options)


gymnasium.register("Broken-v0", Broken)
gymnasium.register("Restless-v0", Restless, kwargs={"shows": True})
