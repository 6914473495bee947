"""One iteration: accumulated gradients, and what is said when it fails."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from project.engine.step import TrainStep
from project.errors import UserError

BATCH = [{"image_id": number, "image": torch.zeros(3, 40, 60)} for number in (3, 5, 8, 9)]


class Regression(nn.Module):
    """A mean over the pictures of a function of their ids."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss
        self.weight = nn.Parameter(torch.tensor([2.0, 1.0]))

    def forward(self, batch):
        ids = torch.tensor([float(record["image_id"]) for record in batch])
        return {"loss": self.loss(self.weight, ids)}


def squares(weight, ids):
    return ((weight.sum() * ids - 1) ** 2).mean()


def step_of(loss, steps: int = 1, rate: float = 1e-4, **kwargs) -> TrainStep:
    model = Regression(loss)
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=rate), seed=0, **kwargs)
    step.batches = iter([BATCH] * steps)
    with EventStorage():
        for step.iter in range(steps):
            step.run_step()
    return step


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_add_up_to_it(parts):
    whole, split = (step_of(squares, 3, accumulate=n).model.weight for n in (1, parts))
    assert torch.allclose(whole, split, atol=1e-6)
    assert not torch.allclose(whole, torch.tensor([2.0, 1.0]))


def test_a_loss_that_is_not_finite_names_pictures_rate_and_largest_gradient():
    # Its gradient for the first weight is 7, for the second NaN.
    def loss(weight, ids):
        return 7 * weight[0] + weight[1] * float("nan")

    with pytest.raises(FloatingPointError) as caught:
        step_of(loss)
    message = str(caught.value)
    assert "iteration 0, images [3, 5, 8, 9]: a loss is not finite (loss nan)" in message
    assert "largest gradient 7 (weight), NaN or infinite in 1 of 1 tensors" in message
    assert "learning rate 0.0001" in message


def test_an_anomaly_is_found_where_it_begins():
    def loss(weight, ids):  # 0 times the infinite slope of the root at 0
        return (weight.sum() - 3).sqrt() * 0 + weight.sum()

    step = step_of(loss)
    assert step.model.weight.isnan().all()  # what a finite loss can hide
    with (
        pytest.warns(UserWarning, match="Error detected in SqrtBackward"),
        pytest.raises(FloatingPointError, match=r"images \[3, 5, 8, 9\]: .*SqrtBackward"),
    ):
        step_of(loss, detect_anomaly=True)


def test_steps_that_float16_skips_are_no_error():
    def loss(weight, ids):  # with the scaler's first scales, gradients overflow float32
        return weight.sum() * 1e36

    step = step_of(loss, 7, rate=1e-36, dtype=torch.float16)
    assert torch.equal(step.model.weight, torch.tensor([2.0, 1.0]))
    step = step_of(loss, 12, rate=1e-36, dtype=torch.float16)
    assert (step.model.weight < torch.tensor([2.0, 1.0])).all()
    assert step.model.weight.isfinite().all()


@pytest.mark.parametrize("dtypes", [(torch.float16, torch.float32), (torch.float32, torch.float16)])
def test_a_run_goes_on_in_another_dtype(dtypes):
    before, after = (step_of(squares, dtype=dtype) for dtype in dtypes)
    after.load_state_dict(before.state_dict())  # the machine may have changed
    assert after.grad_scaler.is_enabled() == (after.dtype == torch.float16)


def test_batchnorm_of_one_picture_is_one_line_with_keys():
    def loss(weight, ids):
        norm = torch.nn.BatchNorm2d(1)
        return norm(weight.sum() * ids.view(-1, 1, 1, 1)).sum()

    step_of(loss, accumulate=2)
    with pytest.raises(UserError, match=r"FrozenBN.* smaller SOLVER.ACCUMULATE \(4\)"):
        step_of(loss, accumulate=4)


def test_momentum_goes_by_name_where_other_parameters_train():
    def step(*names) -> TrainStep:
        model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in "abc"})
        parameters = [model[name].weight for name in names]
        return TrainStep(model, torch.optim.SGD(parameters, 0.1, momentum=0.9), seed=0)

    before, after = step("b", "c"), step("c", "a", "b")
    for number, name in enumerate("bc"):
        before.model[name].weight.grad = torch.full((2, 2), float(number))
    before.optimizer.step()
    after.load_state_dict(before.state_dict())
    momentum = {
        name: after.optimizer.state[after.model[name].weight].get("momentum_buffer")
        for name in "abc"
    }
    assert not momentum["a"].any()
    assert (momentum["b"] == 0).all() and (momentum["c"] == 1).all()


def test_momentum_has_its_weights_place_in_memory():
    gradient = torch.randn(4, 3, 3, 3)

    def step(memory_format: torch.memory_format) -> TrainStep:
        model = torch.nn.Conv2d(3, 4, 3, bias=False).to(memory_format=memory_format)
        torch.nn.init.zeros_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, fused=True)
        return TrainStep(model, optimizer, seed=0)

    before, after = step(torch.contiguous_format), step(torch.channels_last)
    before.model.weight.grad = gradient.clone()
    before.optimizer.step()
    after.load_state_dict(before.state_dict())
    after.model.weight.grad = torch.zeros_like(after.model.weight)
    after.optimizer.step()
    assert torch.allclose(after.model.weight, -0.1 * 0.9 * gradient)


def test_out_of_memory_is_one_line_with_sizes_and_keys():
    def loss(weight, ids):
        return torch.empty(2**50).sum()

    with pytest.raises(UserError) as caught:
        step_of(loss)
    message = str(caught.value)
    assert "images [3, 5, 8, 9] of 40x60, 40x60" in message and "\n" not in message
    assert "SOLVER.ACCUMULATE" in message and "INPUT.LSJ.SIZE" in message


def test_what_begins_to_train_goes_on_with_what_did():
    """On a fused optimizer, for which torch wants a momentum of all or of none."""

    def after_two_steps(fused: bool) -> torch.Tensor:
        def build(frozen: bool) -> TrainStep:
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
            model[0].requires_grad_(not frozen)
            parameters = [p for p in model.parameters() if p.requires_grad]
            optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
            for group in optimizer.param_groups:
                group["fused"] = fused
            return TrainStep(model, optimizer, seed=0)

        def go(step: TrainStep) -> None:
            step.optimizer.zero_grad()
            step.model(torch.ones(1, 2)).sum().backward()
            step.optimizer.step()

        before, after = build(frozen=True), build(frozen=False)
        go(before)
        after.model.load_state_dict(before.model.state_dict())
        after.load_state_dict(before.state_dict())
        for _ in range(2):
            go(after)
        return torch.cat([p.detach().flatten() for p in after.model.parameters()])

    assert torch.allclose(after_two_steps(True), after_two_steps(False), atol=1e-6)
