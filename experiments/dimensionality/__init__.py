"""Dimensionality reduction: do the latents keep neighbours and classes? `python -m experiments.dimensionality`.

Trains an AE and a VAE for each latent dimension and compares the embeddings of the test images with PCA's: 1-NN and
5-NN accuracy, a linear probe, trustworthiness (Venna & Kaski 2001), squared error of the reconstruction. k-NN, the
probe and PCA are fitted on train images and scored on test images. `--run RUN ...` takes finished runs instead.

`python -m experiments.dimensionality embed RUN images.npz` embeds your own images with a finished run.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.dimensionality.report import NEIGHBOURS, PUBLISHED, caption, display_name, has_classes, report
from experiments.study import StudyConfig, begin, finish, trained
from vae_jax.cli.command import free_output
from vae_jax.config import Settings
from vae_jax.domains import MOST_UNITS, are_different, at_least, epoch_number, layer_sizes, seed_field, setting
from vae_jax.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.data.dataset import Dataset, Split
    from vae_jax.runs.run import Run

STUDY = "dimensionality"


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Compare the embeddings of AE, VAE and PCA. The word `embed` as the first argument embeds your own images."""

    latent_dims: tuple[int, ...] = setting(
        (2, 8, 32),
        f"different integers of at least 1 and at most {MOST_UNITS}",
        lambda v: are_different(v) and all(1 <= d <= MOST_UNITS for d in v),
    )
    """Dimensions of the latent space to train for; those of --run are its own."""
    run: tuple[Path, ...] = ()
    """Evaluate these finished runs, all of one data set, instead of training."""
    epochs: int | None = epoch_number()
    """Passes over the training images. Default: 20, but 90 for a plane, whose map takes long to unfold (60 for fewer
    than 10,000 images)."""
    arch: Literal["mlp", "conv"] = "mlp"
    """Fully connected, or convolutional with stride 2."""
    hidden_sizes: tuple[int, ...] | None = layer_sizes()
    """Widths of the encoder's hidden layers (channels for conv), mirrored by the decoder.
    Default: 512 256 128 for mlp, 32 64 for conv."""
    fourier_features: int | None = at_least(0, None, most=MOST_UNITS)
    """Sines, and as many cosines, of the latent that the decoder sees beside it. Default: 64 for at most two
    dimensions, else none."""
    batch_size: int | None = at_least(1, None)
    """Images a step. Default: 512 for a plane, else 256; at most 32 for fewer than 10,000 images, so that there are
    enough steps."""
    seed: int = seed_field()
    """Seed of every training run."""
    trust_images: int = at_least(2 * NEIGHBOURS + 1, 10_000, most=60_000)
    """Trustworthiness on at most so many test images, the first ones; its time and memory grow with the square."""


@dataclasses.dataclass(frozen=True)
class Embed:
    """Embed your own images with a finished run: writes FILE.npz (means, logvars, labels) and FILE.csv."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    images: Annotated[Path, tyro.conf.Positional]
    """An .npz file with `images` (and `labels`), or a folder of images, of the shape that the run was trained on."""
    output: Path | None = None
    """Where the means (and log variances and labels) go, a name that ends in .npz; a .csv of the means and labels
    goes beside it. Default: the images' name with -embedding.npz, beside them."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache directory, so that the next start is fast."""


def run(config: Config) -> dict[str, Any]:
    """Train or restore, measure, draw and report; gives back what summary.json holds."""
    from experiments.dimensionality.figures import accuracy_by_dimension, embeddings
    from vae_jax import plots
    from vae_jax.data.dataset import load_dataset
    from vae_jax.runs.run import load_dataset_of, load_run

    members: dict[str, Settings] = {}
    if config.run:
        runs = [load_run(path) for path in config.run]
        dataset = load_dataset_of(runs[0], config.data_dir)
        _check_same_data(runs)
    else:
        dataset = load_dataset(config.dataset, config.data_dir)
        members = {
            f"{model}-z{dim}": _settings(config, model, dim, dataset)
            for dim in config.latent_dims
            for model in ("ae", "vae")
        }
    path = begin(config, STUDY, dataset, list(members.values()))
    if not config.run:
        runs = [trained(path / "runs" / name, settings, dataset) for name, settings in members.items()]
    rows, drawn = _measure(runs, dataset, config.trust_images)
    name = display_name(dataset)
    folder = path / "figures"
    folder.mkdir(exist_ok=True)
    if drawn:
        figure = embeddings(drawn, dataset.test.labels, f"{name} · test images embedded in two dimensions")
        plots.save(figure, folder / "embeddings.png")
    if any("knn_5" in row for row in rows):
        published = {method: knn_5 for method, (_, knn_5) in PUBLISHED.items()} if dataset.name == "mnist" else {}
        points = [(row["method"], row["latent_dim"], row["knn_5"]) for row in rows]
        title = f"{name} · 5-NN accuracy of test images, neighbours among train images"
        plots.save(accuracy_by_dimension(points, published, title), folder / "accuracy.png")
    numbers = {"dataset": dataset.name, "sha256": dataset.sha256, "rows": rows}
    return finish(path, STUDY, report(rows, dataset, config.trust_images), numbers)


def embed(config: Embed) -> list[Path]:
    """Embed images, write the files and print their paths."""
    import numpy as np

    from vae_jax.data.dataset import read_images
    from vae_jax.files import replacing
    from vae_jax.models.evaluation import encode_images
    from vae_jax.runs.run import load_run

    output = free_output(config.output, config.images, "-embedding.npz")
    paths = [output, free_output(output.with_suffix(".csv"), config.images, ".csv")]
    restored = load_run(config.run)
    split = read_images(config.images, restored.model.image_shape)
    key = restored.evaluation_key
    means, logvars = encode_images(
        restored.model, restored.params, split.images, key, binarize=restored.config.binarize
    )
    arrays: dict[str, Any] = {"means": means, "logvars": logvars, "labels": split.labels}
    with replacing(paths[0]) as npz, replacing(paths[1]) as csv:
        with npz.open("wb") as file:  # given a name, savez would append .npz to it
            np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
        _write_csv(csv, means, split.labels)
    print("\n".join(map(str, paths)))
    return paths


def _write_csv(path: Path, means: "np.ndarray", labels: "np.ndarray | None") -> None:
    import numpy as np

    names = ["index", *(f"z{dim + 1}" for dim in range(means.shape[1]))]
    formats = ["%d", *["%.9g"] * means.shape[1]]  # nine digits give back every float32
    columns = [np.arange(len(means)), *means.T]
    if labels is not None:
        names, formats, columns = [*names, "label"], [*formats, "%d"], [*columns, labels]
    table = np.stack([column.astype(np.float64) for column in columns], axis=1)
    np.savetxt(path, table, fmt=formats, delimiter=",", header=",".join(names), comments="")


def _settings(config: Config, model: Any, dim: int, dataset: "Dataset") -> Settings:
    # In a plane a decoder of dense layers alone mixes up classes that one with sines of the latent tells apart.
    plane, few = dim <= 2, len(dataset.train) < 10_000
    waves = config.fourier_features
    return config.settings(
        dataset,
        model=model,
        latent_dim=dim,
        arch=config.arch,
        hidden_sizes=config.hidden_sizes,
        fourier_features=(64 if plane else 0) if waves is None else waves,
        epochs=config.epochs or ((60 if few else 90) if plane else 20),
        batch_size=config.batch_size or (min(32, len(dataset.train)) if few else 512 if plane else 256),
        seed=config.seed,
    )


def _check_same_data(runs: "list[Run]") -> None:
    first = runs[0]
    for other in runs[1:]:
        if other.dataset["sha256"] != first.dataset["sha256"]:
            raise UsageError(
                f"--run {other.path} was trained on {other.dataset['name']}, {first.path} on {first.dataset['name']}.\n"
                "Give runs of one data set."
            )


def _measure(
    runs: "list[Run]", dataset: "Dataset", most: int
) -> "tuple[list[dict[str, Any]], list[tuple[str, np.ndarray]]]":
    # A row for each run and for PCA in each of their dimensions; the two-dimensional embeddings of the test images.
    from vae_jax.measures.dimensionality import PrincipalComponents, decode_codes, neighbour_ranks
    from vae_jax.models.evaluation import encode_images

    train, test = (_pixels(split) for split in (dataset.train, dataset.test))
    ranks = neighbour_ranks(test[:most].reshape(min(most, len(test)), -1))
    rows, drawn = [], []

    def add(method: str, train_codes: "np.ndarray", test_codes: "np.ndarray", rebuilt: "np.ndarray") -> None:
        row = {"method": method, "latent_dim": test_codes.shape[1]}
        rows.append(row | _numbers(train_codes, test_codes, test, rebuilt, ranks, dataset))
        print(f"{method}, dimensions {row['latent_dim']}: measured", flush=True)
        if test_codes.shape[1] == 2:
            drawn.append((caption(rows[-1]), test_codes))

    for one in runs:
        train_codes, test_codes = (
            encode_images(one.model, one.params, split.images, one.evaluation_key, binarize=one.config.binarize)[0]
            for split in (dataset.train, dataset.test)
        )
        add(one.model.name, train_codes, test_codes, decode_codes(one.model, one.params, test_codes))
        rows[-1]["run"] = str(one.path)
    dims = sorted({one.model.latent_dim for one in runs})
    pca = PrincipalComponents(train, dims[-1])
    for dim in dims:
        if dim <= pca.most:
            test_codes = pca.encode(test, dim)
            add("PCA", pca.encode(train, dim), test_codes, pca.decode(test_codes))
    return rows, drawn


def _numbers(
    train_codes: "np.ndarray",
    test_codes: "np.ndarray",
    test: "np.ndarray",
    rebuilt: "np.ndarray",
    ranks: "np.ndarray",
    dataset: "Dataset",
) -> dict[str, float]:
    from vae_jax.measures.dimensionality import class_numbers, squared_error, trustworthiness

    numbers: dict[str, float] = {}
    if has_classes(dataset):
        numbers |= class_numbers(train_codes, dataset.train.labels, test_codes, dataset.test.labels)
    if len(ranks) > 2 * NEIGHBOURS:
        numbers["trustworthiness"] = trustworthiness(ranks, test_codes[: len(ranks)], NEIGHBOURS)
    return {**numbers, "squared_error": squared_error(test, rebuilt)}


def _pixels(split: "Split") -> "np.ndarray":
    import numpy as np

    return split.images.astype(np.float32) / 255
