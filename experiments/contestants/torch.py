"""PyTorch as a contestant: the loop of its VAE example, on float32 images that lie in the device's memory."""

import itertools
import time
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from experiments.contestants.job import Job, best_rate, threads

BATCH_SIZE = 500  # of inference; vae_jax's too


class _VAE(nn.Module):
    def __init__(self, job: Job, image_shape: tuple[int, int, int]):
        super().__init__()
        height, width, channels = image_shape
        sizes, latent, pixels = job.hidden_sizes, job.latent_dim, height * width * channels
        self.image = (channels, height, width)
        if job.arch == "mlp":
            self.encoder = nn.Sequential(nn.Flatten(), *_dense((pixels, *sizes)))
            self.decoder = nn.Sequential(*_dense((latent, *sizes[::-1])), nn.Linear(sizes[0], pixels))
            last = sizes[-1]
        else:
            down: list[nn.Module] = []
            for a, b in zip((channels, *sizes), sizes, strict=False):
                down += [nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()]
                height, width = -(-height // 2), -(-width // 2)
            last, flat = job.dense_size, sizes[-1] * height * width
            self.encoder = nn.Sequential(*down, nn.Flatten(), *_dense((flat, last)))
            up: list[nn.Module] = [*_dense((latent, flat)), nn.Unflatten(1, (sizes[-1], height, width))]
            for a, b in zip((sizes[-1], *sizes[::-1]), sizes[::-1], strict=False):
                up += [nn.ConvTranspose2d(a, b, 3, 2, 1, 1), nn.ReLU()]
            self.decoder = nn.Sequential(*up, nn.Conv2d(sizes[0], channels, 3, 1, 1))
        self.mean, self.logvar = nn.Linear(last, latent), nn.Linear(last, latent)

    def encode(self, x: Any) -> tuple[Any, Any]:
        h = self.encoder(x)
        return self.mean(h), self.logvar(h)

    def decode(self, z: Any) -> Any:
        return self.decoder(z).view(-1, *self.image)

    def loss(self, x: Any) -> Any:
        """Summed over the batch, in nats."""
        mean, logvar = self.encode(x)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        reconstruction = F.binary_cross_entropy_with_logits(self.decode(z), x, reduction="sum")
        return reconstruction + 0.5 * torch.sum(mean**2 + logvar.exp() - 1 - logvar)


def _dense(widths: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return layers


class Torch:
    """Eager, with fused Adam, or with the loss (and so its gradient) through torch.compile."""

    def __init__(self, job: Job, fused: bool = False, compiled: bool = False):
        torch.manual_seed(0)
        self.job, (self.device, self.version) = job, _setup()
        self.pixels = job.load().transpose(0, 3, 1, 2)
        height, width, channels = job.load().shape[1:]
        self.images = torch.from_numpy(np.ascontiguousarray(self.pixels)).to(self.device).float().div_(255)
        self.model = _VAE(job, (height, width, channels)).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=job.learning_rate, fused=fused or None)
        self.loss = torch.compile(self.model.loss) if compiled else self.model.loss
        self.latents = torch.randn(job.images, job.latent_dim, device=self.device)

    def train(self) -> tuple[float, float]:
        """One epoch: seconds, and mean loss in nats an image."""
        _wait(self.device)
        start = time.perf_counter()
        total = torch.zeros((), device=self.device)
        for indices in torch.randperm(self.job.images, device=self.device).split(self.job.batch_size):
            self.optimizer.zero_grad()
            loss = self.loss(self.images[indices])
            (loss / len(indices)).backward()
            self.optimizer.step()
            total += loss.detach()
        _wait(self.device)
        return time.perf_counter() - start, float(total) / self.job.images

    @torch.inference_mode()
    def encode(self) -> float:
        """Seconds from uint8 images to posterior means and log variances, NumPy in, NumPy out."""
        start = time.perf_counter()
        for batch in torch.from_numpy(self.pixels).split(BATCH_SIZE):
            for part in self.model.encode(batch.to(self.device).float().div_(255)):
                part.cpu().numpy()
        return time.perf_counter() - start

    @torch.inference_mode()
    def decode(self) -> float:
        """Seconds from latents to images as NumPy arrays."""
        start = time.perf_counter()
        for batch in self.latents.split(BATCH_SIZE):
            torch.sigmoid(self.model.decode(batch)).cpu().numpy()
        return time.perf_counter() - start

    def evaluate(self) -> float:
        """Seconds for the mean loss with one latent sample an image."""
        start = time.perf_counter()
        self._mean_loss(self.pixels)
        return time.perf_counter() - start

    def held_out(self) -> float:
        """Mean loss of the images that are not trained on, one latent sample each, in nats an image."""
        return self._mean_loss(self.job.load_held_out().transpose(0, 3, 1, 2))

    @torch.inference_mode()
    def _mean_loss(self, pixels: np.ndarray) -> float:
        losses = [
            self.model.loss(batch.to(self.device).float().div_(255))
            for batch in torch.from_numpy(np.ascontiguousarray(pixels)).split(BATCH_SIZE)
        ]
        return float(sum(losses)) / len(pixels)

    def device_bytes(self) -> int | None:
        """Most memory in use on an accelerator, None on a CPU."""
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None


class TorchRoof:
    """Square float32 matrix products by PyTorch, in the precision that training uses there."""

    def __init__(self, job: Job):
        self.device, self.version = _setup()
        sizes = (512, 1024, 1536) if self.device == "cpu" else (2048, 4096, 8192, 16384)
        self.matrices = {size: torch.randn(size, size, device=self.device) for size in sizes}

    @torch.inference_mode()
    def rates(self) -> dict[int, float]:
        """Floating point operations a second, by size."""
        return {size: best_rate(size, partial(self._multiply, m)) for size, m in self.matrices.items()}

    def _multiply(self, matrix: Any) -> None:
        matrix @ matrix
        _wait(self.device)


def _setup() -> tuple[str, str]:
    torch.set_num_threads(threads())
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as JAX and TensorFlow do by default
    torch.backends.cudnn.allow_tf32 = True
    return "cuda" if torch.cuda.is_available() else "cpu", f"torch {torch.__version__}"


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
