"""What is measured: each module's `run` takes a `Bench` and adds samples to its journal."""
