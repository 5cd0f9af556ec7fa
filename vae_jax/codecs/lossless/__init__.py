"""Images to files and back without a loss, by a VAE and bits back, the same on every machine."""
