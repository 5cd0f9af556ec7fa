"""Who trains in the benchmark, each in a process of its own: nothing is imported here that one of them brings."""
