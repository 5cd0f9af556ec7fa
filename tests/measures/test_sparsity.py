import jax
import numpy as np

from vae_jax.config import Settings
from vae_jax.measures.sparsity import most_used_atoms
from vae_jax.models.autoencoders import build_model


def test_atoms_of_a_linear_decoder_are_its_rows_the_most_used_first():
    model = build_model(Settings(model="ae", hidden_sizes=(), latent_dim=3), (2, 2, 1))
    params = model.init(jax.random.key(0))
    codes = np.float32([[2, 0, -1], [4, 0, -3], [0, 0, 0], [0, 0, -4]])
    rows = np.asarray(params["decoder"]["Dense_0"]["kernel"]).reshape(3, 2, 2, 1)
    expected = rows * np.float32([3, 0, -8 / 3]).reshape(3, 1, 1, 1)
    for number in (2, 9):
        found = most_used_atoms(model, params, codes, number)
        np.testing.assert_allclose(found, expected[[2, 0, 1][:number]], rtol=1e-5, atol=1e-6)
