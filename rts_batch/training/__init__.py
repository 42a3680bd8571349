"""Training as in the paper: sequence sampling, augmentation, losses, the loop."""
