"""The measures and protocols of the paper's benchmarks. `measures` and `davis` need nothing but arrays."""
