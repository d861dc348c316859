"""The LightningModule: thin. What is learned is in `objective`, what is random is in `draws`."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diffexp.data.base import Data
from diffexp.denoiser import Denoiser
from diffexp.draws import Draws, stream_key
from diffexp.objective import Objective
from diffexp.times import Times
from diffexp.training.distributed import World
from diffexp.training.ema import Ema

MakeOptimizer: TypeAlias = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class DiffusionModule(pl.LightningModule):
    """Trains one denoiser on one objective with draws that are functions of (seed, step).

    Args:
        denoiser: The network under training, its schedule and its target.
        objective: The loss; its target is the denoiser's.
        times: Which noise levels are trained on.
        data: Where images come from, already on the device.
        seed: Of the draws.
        optimizer: Makes the optimiser from the parameters.
        batch_size: Images per step.
        warmup_steps: Steps over which the learning rate rises linearly to its value.
        ema_decay: See `Ema`.
        loss_scale: The optimised loss is the logged one divided by this, so that gradient clipping and Adam's
            epsilon treat targets alike whatever their units.
        world: Which images of each batch are this process's. Every process makes the draws of the whole batch and
            takes its own, so that they are those of a run on one device.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        objective: Objective,
        times: Times,
        data: Data,
        seed: int,
        optimizer: MakeOptimizer,
        batch_size: int,
        warmup_steps: int,
        ema_decay: float,
        loss_scale: float = 1.0,
        world: World | None = None,
    ) -> None:
        super().__init__()
        self.denoiser, self.objective, self.times, self.data = denoiser, objective, times, data
        self.draws = Draws(seed, data.device)
        self.make_optimizer, self.batch_size, self.warmup_steps = optimizer, batch_size, warmup_steps
        self.loss_scale, self.world = loss_scale, world or World()
        self._learner = [denoiser]  # in a list, so that what wraps the network is no part of a checkpoint
        self.ema = Ema(denoiser.network, ema_decay)
        self.losses = torch.zeros((), dtype=torch.float64)  # of the steps since it was last read, on the device
        self.steps = 0

    @property
    def averaged(self) -> Denoiser:
        """The denoiser with the averaged weights: the one that is validated and sampled from."""
        return Denoiser(self.ema.network, self.denoiser.schedule, self.denoiser.target, self.denoiser.autocast)

    def on_train_start(self) -> None:
        """The network is on its device and has its weights."""
        network = self.world.averaging(self.denoiser.network)
        self._learner = [Denoiser(network, self.denoiser.schedule, self.denoiser.target, self.denoiser.autocast)]

    def on_train_end(self) -> None:
        """Training is over, and with it the averaging."""
        self._learner = [self.denoiser]

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """One step; which one is all that the loader has to say."""
        step, schedule = self.global_step, self.denoiser.schedule
        dropout = f"dropout/{self.world.rank}" if self.world.rank else "dropout"
        self._seed_dropout(stream_key(self.draws.seed, step, dropout) % 2**63)
        x0 = self.data.batch(self.draws, step, self.batch_size)
        strata = torch.arange(self.batch_size, device=x0.device)
        t = self.times(schedule, (strata + self.draws.uniform(self.batch_size, step, "times")) / self.batch_size)
        eps, xi = (self.draws.normal(x0.shape, step, purpose, x0.dtype) for purpose in ("eps", "xi"))
        x0, t, eps, xi = (self.world.share(draw) for draw in (x0, t, eps, xi))
        loss = self.objective(self._learner[0], x0, t, eps, xi).mean()
        self.losses = self.losses.to(loss.device) + self.world.mean(loss.detach().double())
        self.steps += 1
        return loss / self.loss_scale

    def _seed_dropout(self, key: int) -> None:
        """Only the generator in use: torch.manual_seed also asks for every absent device, at 1.5 ms a step."""
        if self.draws.device.type == "cuda":
            torch.cuda.manual_seed(key)
        else:
            torch.default_generator.manual_seed(key)

    def read_loss(self) -> float:
        """The mean training loss since it was last read; waits for the device."""
        mean = self.losses.item() / max(self.steps, 1)
        self.losses, self.steps = torch.zeros_like(self.losses), 0
        return mean

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then average the weights: before any callback looks at them or saves them."""
        done = self.global_step
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.denoiser.network, done)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The losses that were not yet read belong to the next line of metrics."""
        checkpoint["unread"] = {"losses": self.losses.cpu(), "steps": self.steps}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them up again."""
        self.losses, self.steps = checkpoint["unread"]["losses"], checkpoint["unread"]["steps"]

    def configure_optimizers(self) -> Any:
        """The optimiser and its warm-up."""
        optimizer = self.make_optimizer(self.denoiser.network.parameters())
        warmup = max(self.warmup_steps, 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / warmup, 1.0))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class StepLoader(pl.LightningDataModule):
    """Yields step numbers: images stay on their device, and the step decides which are used."""

    def __init__(self, max_steps: int) -> None:
        super().__init__()
        self.max_steps = max_steps

    def train_dataloader(self) -> Any:
        """One item per step."""
        return DataLoader(cast(Any, range(self.max_steps)), batch_size=None)
