"""Which thing should a diffusion network be asked to predict? One U-Net, one schedule, many targets."""

__version__ = "0.1.0"
