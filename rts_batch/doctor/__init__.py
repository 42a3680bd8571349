"""What a machine has for runs: `examination.examine` looks, `rts-batch doctor` shows it."""
