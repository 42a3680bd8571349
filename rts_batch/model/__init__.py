"""The network of the paper: pure torch, no files (except `weights`), no tracking state."""
