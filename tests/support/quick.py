"""Settings with which a run takes seconds."""

QUICK = (
    "trainer.max_steps=4",
    "training.batch_size=16",
    "training.log_every=2",
    "training.warmup_steps=1",
    "validation.every=2",
    "validation.count=64",
    "sampling.grid=4",
    "sampler.steps=3",
    "metric=none",
    "network.widths=[8]",
    "network.attention=[false]",
    "network.layers=1",
    "network.groups=4",
)
