import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from predilect.recipe import Recipe
from predilect.training.schedule import RateSchedule


def recipe(**changes):
    return Recipe(name="r", **{"iterations": 100, "learning_rate": 1.0, "warmup": 0, **changes})


def test_cosine_falls_from_the_warm_up_to_zero():
    schedule = RateSchedule(recipe(schedule="cosine", warmup=10))
    rates = [schedule.rate(k) for k in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[10] == pytest.approx(1)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001


@pytest.mark.parametrize("seed", range(5))
def test_plateaus_are_those_of_pytorch(seed):
    """Our patience counts the validations that make a plateau, PyTorch's those it forgives before the one that does."""
    settings = recipe(schedule="plateau", plateau_patience=3, plateau_threshold=0.01, plateaus=100)
    ours = RateSchedule(settings)
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = ReduceLROnPlateau(optimizer, factor=0.1, patience=2, threshold=0.01, eps=0)
    losses = (3 + torch.randn(60, generator=torch.Generator().manual_seed(seed)) * 0.2 - torch.arange(60) * 0.01).tolist()
    for k, loss in enumerate(losses):
        ours.observe(k + 1, loss)
        theirs.step(loss)
        assert ours.rate(k + 1) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_the_last_plateau_ends_the_training():
    schedule = RateSchedule(recipe(schedule="plateau", plateau_patience=2, plateaus=3))
    ends = [schedule.observe(k, 1.0) for k in range(1, 8)]
    assert ends == [False, False, False, False, False, False, True]
    assert schedule.drops == [3, 5, 7]
    assert schedule.rate(2) == 1
    assert schedule.rate(3) == pytest.approx(0.1)


def test_patience_ends_the_training_and_the_lowest_loss_is_remembered():
    schedule = RateSchedule(recipe(schedule="constant", patience=3, plateau_threshold=0.1))
    losses = [1.0, 0.5, 0.48, 0.49, 0.47]
    assert [schedule.observe(k + 1, loss) for k, loss in enumerate(losses)] == [False, False, False, False, True]
    assert (schedule.lowest, schedule.lowest_iteration) == (0.47, 5)


def test_a_schedule_goes_on_from_its_state():
    settings = recipe(schedule="plateau", plateau_patience=2)
    losses = [1.0, 0.9, 0.95, 0.92, 0.91, 0.5, 0.6, 0.7]
    whole, first = RateSchedule(settings), RateSchedule(settings)
    for k, loss in enumerate(losses):
        whole.observe(k, loss)
    for k, loss in enumerate(losses[:4]):
        first.observe(k, loss)
    second = RateSchedule(settings)
    second.restore(first.state())
    for k, loss in enumerate(losses[4:], start=4):
        second.observe(k, loss)
    assert second.state() == whole.state()


def test_a_refit_drops_where_it_is_told():
    schedule = RateSchedule(recipe(schedule="plateau"), drops=[20, 30])
    assert [round(schedule.rate(k), 6) for k in (19, 20, 29, 30)] == [1, 0.1, 0.1, 0.01]
