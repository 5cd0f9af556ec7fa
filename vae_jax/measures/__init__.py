"""Arrays in, numbers out: what a model and its latent space are worth."""
