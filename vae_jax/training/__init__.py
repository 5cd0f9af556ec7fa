"""How a model is trained: the step, the compiled epoch, devices and processes."""
