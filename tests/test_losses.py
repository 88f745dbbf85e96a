import numpy as np
import pytest
import torch

from predilect.vision.losses import lesion_loss, multitask_loss, presence_weights, probabilities, site_loss


def written_out(lesion_logits, lesions, site_logits, sites):
    """Eqs. 3 to 7 as they stand in the paper, in float64 NumPy, for fully known labels."""
    n = len(lesion_logits)
    total = 0.0
    for i in range(n):
        a = 1 / (1 + np.exp(-lesion_logits[i]))  # Eq. 4
        total += -np.sum(lesions[i] * np.log(a) + (1 - lesions[i]) * np.log(1 - a)) / n  # Eq. 5
        b = np.exp(site_logits[i]) / np.exp(site_logits[i]).sum()  # Eq. 6
        total += -np.log(b[sites[i]]) / n  # Eq. 7
    return total


@pytest.fixture
def batch():
    rng = np.random.default_rng(5)
    lesion_logits, site_logits = rng.normal(size=(7, 4)), rng.normal(size=(7, 3))
    lesions = rng.integers(0, 2, size=(7, 4))
    sites = rng.integers(0, 3, size=7)
    return lesion_logits, lesions, site_logits, sites


def tensors(batch):
    lesion_logits, lesions, site_logits, sites = batch
    one_hot = np.eye(3, dtype=np.int8)[sites]
    return (
        {"lesion": torch.tensor(lesion_logits, requires_grad=True), "site": torch.tensor(site_logits, requires_grad=True)},
        {"lesion": torch.tensor(lesions, dtype=torch.int8), "site": torch.tensor(one_hot)},
    )


def test_the_losses_are_the_papers_equations(batch):
    logits, labels = tensors(batch)
    losses = multitask_loss(logits, labels, len(batch[0]))
    assert sum(float(loss.detach()) for loss in losses.values()) == pytest.approx(written_out(*batch), rel=1e-6)


def test_unknown_cells_have_exactly_zero_gradient(batch):
    logits, labels = tensors(batch)
    labels["lesion"][0, 1] = labels["lesion"][3] = -1
    labels["site"][2] = -1
    sum(multitask_loss(logits, labels, 7).values()).backward()
    lesion, site = logits["lesion"].grad, logits["site"].grad
    assert lesion[0, 1] == 0
    assert (lesion[3] == 0).all()
    assert (site[2] == 0).all()
    assert (lesion[1] != 0).all()
    assert (site[0] != 0).all()


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 1e30])
def test_not_even_an_extreme_logit_of_an_unknown_cell_counts(value):
    logits = torch.tensor([[value, 0.5]], requires_grad=True)
    loss = lesion_loss(logits, torch.tensor([[-1, 1]], dtype=torch.int8), 1)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad[0, 0] == 0


def test_a_batch_of_unknowns_costs_nothing():
    lesion, site = torch.randn(3, 4, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    unknown = -torch.ones(3, 5, dtype=torch.int8)
    total = lesion_loss(lesion, unknown[:, :4], 3) + site_loss(site, unknown, 3)
    total.backward()
    assert float(total.detach()) == 0
    assert not lesion.grad.any()
    assert not site.grad.any()


def test_parts_of_a_batch_add_up_to_the_whole(batch):
    logits, labels = tensors(batch)
    labels["lesion"][5] = -1  # a part of unknowns must not be weighed up
    whole = sum(multitask_loss(logits, labels, 7).values())
    parts = [
        sum(multitask_loss({k: v[rows] for k, v in logits.items()}, {k: v[rows] for k, v in labels.items()}, 7).values())
        for rows in (slice(0, 5), slice(5, 7))
    ]
    assert float(sum(parts).detach()) == pytest.approx(float(whole.detach()), rel=1e-6)


def test_probabilities_follow_equations_4_and_6(batch):
    logits, _ = tensors(batch)
    scores = probabilities(logits)
    assert scores["lesion"].dtype == torch.float32
    np.testing.assert_allclose(scores["lesion"].detach(), 1 / (1 + np.exp(-batch[0])), rtol=1e-6)
    np.testing.assert_allclose(scores["site"].detach().sum(dim=1), 1, atol=1e-6)


def test_rare_lesions_gain_what_frequent_ones_give():
    labels = torch.zeros(1000, 4, dtype=torch.int8)
    labels[:500, 0] = labels[:20, 1] = 1
    labels[:, 2] = -1
    labels[:5, 2], labels[5:100, 2] = 1, 0  # 5 % of the 100 known
    weights = presence_weights(labels, 0.5)
    frequencies = torch.tensor([0.5, 0.02, 0.05])
    torch.testing.assert_close(weights[:3] / weights[0], (0.5 / frequencies) ** 0.5)
    assert float((weights[:3] * torch.tensor([500.0, 20.0, 5.0])).sum()) == pytest.approx(525)
    assert weights[3] == 1
    assert torch.equal(presence_weights(labels, 0.0), torch.ones(4))


def test_a_weighted_present_cell_counts_its_weight_and_an_absent_one_does_not():
    logits = torch.tensor([[0.3, -1.0]])
    plain = [lesion_loss(logits, torch.tensor([[present, 0]], dtype=torch.int8), 1) for present in (0, 1)]
    weighted = [
        lesion_loss(logits, torch.tensor([[present, 0]], dtype=torch.int8), 1, torch.tensor([3.0, 9.0])) for present in (0, 1)
    ]
    assert weighted[0] == plain[0]
    other = torch.nn.functional.softplus(logits[0, 1])
    torch.testing.assert_close(weighted[1] - other, 3 * (plain[1] - other))
