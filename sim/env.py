"""The tasks as Gymnasium environments: `gymnasium.make("jepa_arm/Push-v0")` after `import sim.env`.

There are Reach, Push, PushFar, PushPose and PickPlace.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from hardware.robot import load_robot
from sim.control import DECISION_S
from sim.results import HeldSuccess
from sim.tasks import TASKS, Episode, distance_m, make_loop, make_task, new_episode

Observation = dict[str, Any]


class GoalPictureEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """Bring about what the goal picture shows.

    Observation: `image` and `goal_image` uint8 (H, W, 3) RGB, `tool` float32 (3,) metres, or (4,) with the
    gripper's joint where the task grasps.
    Action: float32 (A,) in −1…1, in units of the task's action limit (2 or 3 cm in 0.1 s).
    Reward: minus `sim.tasks.distance_m`, metres. Terminated when success was held for 1 s, truncated when the
    episode's budget is used. Info: `distance_m`, `success`, `held`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / DECISION_S)}

    def __init__(self, task: str, robot: str | None = None, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.task = make_task(task)
        self.loop = make_loop(self.task, load_robot(robot or self.task.robot))
        camera = self.loop.world.robot.camera
        picture = spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8)
        tool = spaces.Box(-2.0, 2.0, (4 if self.task.grasps else 3,), np.float32)
        self.observation_space = spaces.Dict({"image": picture, "goal_image": picture, "tool": tool})
        self.action_space = spaces.Box(-1.0, 1.0, (self.task.action_dim,), np.float32)
        self._episode: Episode | None = None
        self._picture: NDArray[np.uint8] | None = None

    @property
    def episode(self) -> Episode:
        if self._episode is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        return self._episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        episode_seed = seed if seed is not None else int(self.np_random.integers(2**31))
        self._episode = new_episode(self.task, self.loop, episode_seed)
        self._success = HeldSuccess()
        self._steps = 0
        return self._observe(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        episode = self.episode
        self.loop.execute(np.clip(np.asarray(action, np.float64), -1.0, 1.0) * self.task.action_limit_m)
        self._steps += 1
        distance = distance_m(self.task, self.loop, episode)
        self._success.update(distance, self._steps * DECISION_S)
        truncated = self._steps >= episode.budget_steps
        return self._observe(), -distance, self._success.held, truncated, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        return self._picture if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self.loop.world.close()

    def _observe(self) -> Observation:
        self._picture = self.loop.world.render()
        return {
            "image": self._picture.copy(),
            "goal_image": self.episode.goal_image.copy(),
            "tool": self.loop.tool_state().astype(np.float32),
        }

    def _info(self) -> dict[str, Any]:
        distance = distance_m(self.task, self.loop, self.episode)
        return {"distance_m": distance, "success": self._success.reached, "held": self._success.held}


for _name in TASKS:
    gymnasium.register(
        f"jepa_arm/{_name.title().replace('-', '')}-v0",
        entry_point="sim.env:GoalPictureEnv",
        kwargs={"task": _name},
    )
