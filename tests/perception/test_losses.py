from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from perception.jepa.losses import (
    REFLEX_WIDTH,
    Models,
    advantage_weights,
    reflex_misses,
    sigreg,
    sigreg_within,
    steps_to_go_loss,
    straightening,
    world_model_terms,
)
from perception.jepa.model import (
    ELSEWHERE_FACTOR,
    Displacement,
    Encoder,
    Energy,
    InverseDynamics,
    Predictor,
    Proposal,
)
from perception.jepa.windows import GOALS, Sample

MAX_STEPS, ELSEWHERE = 20, 21
seeds = st.integers(0, 2**31 - 1)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measure(latents: torch.Tensor) -> float:
    return sigreg(latents, torch.Generator().manual_seed(1)).item()


@given(seeds)
@settings(deadline=None, max_examples=6)
def test_sigreg_is_small_for_a_standard_normal_and_large_for_anything_else(seed: int) -> None:
    latents = normal(seed, 512, 16)
    assert measure(latents) < 3.0
    one_dead = latents * (torch.arange(16) > 3)
    shifted, wide, narrow = latents + 1.0, latents * 2.0, latents * 0.3
    two_lumps = latents.sign()
    collapsed, on_a_line = torch.zeros(512, 16), latents[:, :1].expand(-1, 16)
    for other in (collapsed, on_a_line, shifted, wide, narrow):
        assert measure(other) > 20.0
    for other in (one_dead, two_lumps[:, :1]):
        assert measure(other) > 5.0


def test_sigreg_pulls_a_collapsed_batch_apart() -> None:
    latents = (normal(0, 256, 8) * 0.05).requires_grad_()
    sigreg(latents, torch.Generator().manual_seed(1)).backward()
    assert latents.grad is not None
    spread = (latents - 10 * latents.grad).std()
    assert spread > 1.5 * latents.std()


def test_what_tells_sessions_apart_does_not_keep_latents_from_having_collapsed() -> None:
    """Latents that only say which session they are of are spread as wide as one could wish."""
    of_session = normal(0, 64, 1, 8).expand(-1, 8, -1).flatten(0, 1)
    generator = torch.Generator().manual_seed(1)
    assert measure(of_session) < 40.0 < 200.0 < sigreg_within(of_session, 8, generator).item()
    moving = normal(1, 512, 8)
    assert sigreg_within(moving + 5 * of_session, 8, generator).item() < 4.0


@given(seeds, st.integers(3, 9))
@settings(deadline=None, max_examples=30)
def test_straightening_is_zero_for_straight_lines_at_any_speed(seed: int, length: int) -> None:
    start, direction = normal(seed, 4, 1, 8), normal(seed + 1, 4, 1, 8)
    speeds = torch.rand(4, length, 1, generator=torch.Generator().manual_seed(seed)) + 0.1
    assert straightening(start + direction * speeds.cumsum(1)).item() == pytest.approx(0.0, abs=1e-4)


def test_straightening_is_one_for_right_angles_and_two_for_turning_back() -> None:
    corner = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    assert straightening(corner).item() == pytest.approx(1.0, abs=1e-4)
    there_and_back = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]])
    assert straightening(there_and_back).item() == pytest.approx(2.0, abs=1e-4)


def test_straightening_of_latents_that_stand_still_is_finite() -> None:
    latents = torch.zeros(2, 5, 8, requires_grad=True)
    straightening(latents).backward()
    assert latents.grad is not None and torch.isfinite(latents.grad).all()


def test_the_energy_s_loss_is_least_for_the_true_number_of_steps() -> None:
    steps = torch.arange(MAX_STEPS + 2)
    sure = torch.nn.functional.one_hot(steps, MAX_STEPS + 2) * 20.0
    assert steps_to_go_loss(sure, steps) < 1e-3 < 5.0 < steps_to_go_loss(sure.roll(1, 0), steps)


def steps_to_go(*classes: int) -> float:
    """What the energy makes of its classes if these are equally likely and all others out of the question."""
    energy = Energy(latent_dim=4, max_steps=MAX_STEPS)
    last = energy.layers[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.full((MAX_STEPS + 2,), -60.0)
    last.bias.data[list(classes)] = 0.0
    return energy.steps_to_go(torch.zeros(1, 4), torch.ones(1, 4)).item()


def test_steps_to_go_are_those_of_the_only_likely_class_with_elsewhere_beyond_them_all() -> None:
    for index in (0, 7, MAX_STEPS):
        assert steps_to_go(index) == pytest.approx(index, abs=1e-3)
    assert steps_to_go(ELSEWHERE) == pytest.approx(ELSEWHERE_FACTOR * MAX_STEPS, abs=1e-3)
    assert ELSEWHERE_FACTOR > 1


def test_steps_to_go_are_optimistic_where_several_classes_are_likely() -> None:
    for near, far in ((0, 9), (3, 15), (5, ELSEWHERE)):
        assert near < steps_to_go(near, far) < near + 1.0


BATCH, LENGTH, TOGETHER = 8, 5, 4


def numbered_sample() -> Sample:
    """Pictures whose first two pixels' red are episode and model step, as are tools; actions are steps."""
    rng = np.random.default_rng(0)
    start = torch.from_numpy(rng.integers(0, 10, BATCH))
    now = start[:, None] + torch.arange(LENGTH)
    goal = start[:, None] + torch.from_numpy(rng.integers(1, 40, (BATCH, GOALS)))

    def pictures(steps: torch.Tensor) -> torch.Tensor:
        shown = torch.zeros(*steps.shape, 16, 16, 3, dtype=torch.uint8)
        shown[..., 0, 0, 0] = torch.arange(BATCH, dtype=torch.uint8)[:, None]
        shown[..., 0, 1, 0] = steps.to(torch.uint8)
        return shown

    actions = now[:, :-1, None].expand(-1, -1, 4).float()
    left = goal[:, None] - now[:, :, None]
    episode = torch.arange(BATCH)[:, None].expand_as(now)
    tool = torch.stack([episode, now, torch.zeros_like(now)], 2).float()
    return Sample(pictures(now), tool, actions, pictures(goal), left)


class Reader(torch.nn.Module):
    """An encoder that reads (episode, step) off numbered pictures."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, 0, :2, 0].float()


class Knowing(torch.nn.Module):
    """A reflex that knows what was done."""

    def forward(
        self, latent: torch.Tensor, goal: torch.Tensor, left: torch.Tensor, tool: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert left.equal((goal - latent)[:, 1:])
        return latent[:, None, 1:].expand(-1, 1, 4), torch.zeros(len(latent), 1)


class Certain(torch.nn.Module):
    """An energy that is certain of the true steps to go."""

    max_steps = MAX_STEPS

    def forward(self, latent: torch.Tensor, goal: torch.Tensor, tool: torch.Tensor) -> torch.Tensor:
        steps = (goal - latent)[:, 1].long()
        elsewhere = goal[:, 0] != latent[:, 0]
        assert (steps[~elsewhere] >= 0).all() and (steps[~elsewhere] <= MAX_STEPS).all()
        return 50.0 * functional.one_hot(steps.where(~elsewhere, ELSEWHERE), MAX_STEPS + 2)


class Surveyor(torch.nn.Module):
    """Knows the tool's way between numbered pictures, and has seen between which it was asked for it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[tuple[int, int]] = set()

    def forward(self, latent: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        self.asked |= set(zip(latent[:, 0].int().tolist(), other[:, 0].int().tolist(), strict=True))
        return torch.cat([other - latent, torch.zeros(len(latent), 1)], 1)


def test_the_tool_s_way_is_asked_for_between_windows_of_one_session() -> None:
    surveyor = Surveyor()
    models = Models(Reader(), Predictor(2, 3, 4), InverseDynamics(2, 4), Knowing(), Certain(), surveyor)  # type: ignore[arg-type]
    terms = world_model_terms(models, numbered_sample(), 2, TOGETHER, torch.Generator().manual_seed(0))
    assert terms.displacement.item() == 0.0
    assert surveyor.asked == {(0, 3), (1, 0), (2, 1), (3, 2), (4, 7), (5, 4), (6, 5), (7, 6)}


def test_reflex_and_time_to_go_are_asked_for_what_was_done_on_the_way_to_each_goal() -> None:
    models = Models(
        Reader(), Predictor(2, 3, 4), InverseDynamics(2, 4), Knowing(), Certain(), Displacement(2, 3)
    )  # type: ignore[arg-type]
    terms = world_model_terms(models, numbered_sample(), 2, TOGETHER, torch.Generator().manual_seed(0))
    assert terms.reflex.item() == terms.time_to_go.item() == 0.0


@pytest.mark.parametrize("term", ["reflex", "time_to_go", "displacement"])
def test_what_reads_the_latents_needs_to_know_the_encoder_learns_to_tell(term: str) -> None:
    encoder = Encoder(16, 8)
    models = Models(
        encoder,
        Predictor(8, 3, 4),
        InverseDynamics(8, 4),
        Proposal(8, 4, MAX_STEPS),
        Energy(8, MAX_STEPS),
        Displacement(8, 3),
    )
    terms = world_model_terms(models, numbered_sample(), 2, TOGETHER, torch.Generator().manual_seed(0))
    getattr(terms, term).backward()
    first = next(encoder.parameters())
    assert first.grad is not None and first.grad.abs().sum() > 0


def test_the_quickest_ways_weigh_most_and_the_mean_weight_is_one() -> None:
    before = torch.full((4,), 10.0)
    after = torch.tensor([9.0, 9.25, 9.5, 30.0])
    weights = advantage_weights(before, after, temperature=0.5)
    assert weights.mean().item() == pytest.approx(1.0)
    assert (weights[:-1] > weights[1:]).all()
    assert (weights[0] / weights[2]).item() == pytest.approx(math.e, rel=1e-4)
    assert (weights[0] / weights[3]).item() == pytest.approx(math.e**2, rel=1e-4), "and none is ruled out"


def test_an_answer_that_is_not_nearest_costs_nothing_but_its_likelihood() -> None:
    taken = torch.tensor([[0.5, -0.5]])
    answers = torch.tensor([[[0.5, -0.5], [-1.0, 1.0]]])
    even, sure = torch.zeros(1, 2), torch.tensor([[9.0, -9.0]])
    assert reflex_misses(answers, sure, taken).item() == pytest.approx(0.0, abs=1e-6)
    assert reflex_misses(answers, even, taken).item() == pytest.approx(REFLEX_WIDTH * math.log(2), rel=1e-4)
    assert reflex_misses(answers[:, :1], sure[:, :1], -taken).item() == pytest.approx(0.95)


def test_of_two_ways_the_reflex_learns_the_likelier_not_their_mean() -> None:
    torch.manual_seed(0)
    proposal = Proposal(2, 1, MAX_STEPS, width=32)
    optimiser = torch.optim.Adam(proposal.parameters(), 3e-3)
    scene = torch.zeros(300, 2), torch.ones(300, 2), torch.full((300, 1), 3.0)
    taken = torch.where(torch.arange(300) < 200, 0.8, -0.8)[:, None]
    for _ in range(150):
        optimiser.zero_grad()
        reflex_misses(*proposal(*scene), taken).mean().backward()
        optimiser.step()
    answers, logits = proposal(*scene)
    shares = logits.softmax(1)[0]
    assert answers[0, shares.argmax(), 0].item() == pytest.approx(0.8, abs=0.05)
    assert shares[answers[0, :, 0] < -0.7].sum().item() == pytest.approx(1 / 3, abs=0.05)
