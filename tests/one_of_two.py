"""A command that trains on the digits and no more, for test_processes: its flags are those of every such command."""

from experiments._cli import TrainingConfig, main


def run(config):
    """Train into --run-dir."""
    from vae_jax.data import load_dataset
    from vae_jax.models import build_model
    from vae_jax.recording import train_run

    dataset = load_dataset("digits")
    train_run(config.run_dir, build_model(config, dataset.image_shape), config, dataset, resume=config.resume)


if __name__ == "__main__":
    main(TrainingConfig, run)
