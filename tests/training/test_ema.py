"""The average of the weights, against torch's own average and by hand."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffexp.training.ema import Ema


def test_it_is_the_exponential_average_once_the_warm_up_is_over() -> None:
    network = nn.Linear(3, 3)
    ours, theirs = Ema(network, 0.9), AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(network)
    for step in range(100, 120):  # (1 + 100) / (10 + 100) > 0.9
        with torch.no_grad():
            network.weight += torch.randn_like(network.weight)
        ours.update(network, step)
        theirs.update_parameters(network)
    torch.testing.assert_close(ours.network.weight, theirs.module.weight)


def test_the_first_update_takes_nine_tenths_of_the_network() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = Ema(network, 0.9999)
    nn.init.ones_(network.weight)
    ema.update(network, 0)
    assert ema.network.weight.item() == 1 - 1 / 10


def test_buffers_are_taken_over_and_nothing_of_it_is_trained() -> None:
    network = nn.BatchNorm1d(2)
    ema = Ema(network, 0.5)
    network(torch.randn(8, 2) + 3)
    ema.train().update(network, 1000)
    torch.testing.assert_close(ema.network.running_mean, network.running_mean)
    assert not ema.network.training
    assert not any(p.requires_grad for p in ema.parameters())
