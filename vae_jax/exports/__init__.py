"""Trained models as files that other programs run: encode, decode and generate without vae_jax."""
