"""How strong, how noisy and how much at odds the gradients of the noise levels are."""
