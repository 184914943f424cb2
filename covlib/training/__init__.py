"""Training any method: the loop, batches, checkpoints and resume, devices, recorded steps, logs."""
