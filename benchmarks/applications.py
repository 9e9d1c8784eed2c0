"""Images drawn, images drawn by their label, and images in another style: are they right, and varied?

    python benchmarks/applications.py --seeds 5                                 # scikit-learn's digits
    python benchmarks/applications.py --seeds 5 --data DIR                      # MNIST
    python benchmarks/applications.py --seeds 5 --data DIR --fashion --tasks draw label
    python benchmarks/applications.py --seeds 5 --data DIR --tasks texture photographs

DIR holds the four ``idx`` files of MNIST, gzipped, in ``mnist/``, those of Fashion-MNIST in
``fashion_mnist/``, and POT's ``ocean_day.jpg`` and ``ocean_sunset.jpg`` in ``photos/``. 6 000 images of MNIST
are used, 14 x 14 pixels after averaging. Every seed has its own images to fit and to hold out, a third of
all. Drawn and moved pixels are cut to the range of real ones.

"draw" draws 1 000 images from noise, with a small U-Net, and rounds pixels to whole grey values:

- energy distance to the held-out images, in units of the root mean square deviation of a pixel;
- accuracy of a classifier that tells the two apart, 0.5 being the best;
- distance to the nearest fitted image, as a ratio to that of held-out images: far below 1 is memory.

"start" is where both flows start, drawn by a flow without a training.

"label" draws as many images of each class as are held out:

- accuracy of a classifier of real images for the class asked for;
- spread within a class (root of the sum of the pixels' variances), and distance to the nearest drawn image
  of the class, as ratios to those of held-out images: far below 1 means little variety;
- distance to the nearest fitted image of the class, and energy distance, as above.

"style" moves held-out images from one style to another, learnt from two sets that share no image:

- accuracy of a classifier of real images in both styles, for the class that the image had;
- share of images that a classifier of styles takes for the new one;
- distance to the true image in the new style, as a ratio to that of the unchanged image.

"texture" does the same towards bold digits of MNIST whose ink is multiplied by the cloth of a garment of
Fashion-MNIST, another one for each image. The true image is not unique: in place of the distance to it there
are the energy distance to the held-out digits in their cloth, and the accuracy of a classifier that tells the
two apart, all pixels rounded to whole grey values. "True image" then has another cloth.

In both, "linear by class" has a linear map for each class, and the first classifier tells it the class. The
other maps see no class of the image that they move.

"photographs" moves a photograph of the sea by day to one at sunset: its pixels, or the patches of 3 x 3
pixels around them, with or without their place in the photograph. 4 000 of each photograph are fitted. A
third of its 16 x 16 tiles is held out, and measured:

- correlation of the gradients of the luminance with those by day, and the mean local correlation of the
  luminance, which is the structure in the structural similarity;
- share of patches that a classifier of patches takes for the sunset;
- energy distance of colours to the sunset, of patches, and of colours with their place.

"sunset" compares fitted patches of the sunset with those held out. The first seed draws photographs.png.

Numbers after a comma are evaluations of a network for each image;
those by Heun's steps use the network of the line before, so that their seconds are those of the drawing.
Figures are kept in results/applications.csv, and what is there is not run again.
"""

import time
import warnings
from collections import namedtuple
from functools import partial

import numpy as np
import ot
from _harness import ResultsFile, make_parser, print_row, read_idx, spread
from _photographs import COLOURS, MIDDLE, N_TILES, PATCH, Judge, Patches, draw_pictures, read_photograph
from scipy import ndimage
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KernelDensity, NearestNeighbors
from sklearn.svm import SVC

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.domains import stack_domains
from sklearn_nsgf.metrics import classifier_two_sample_test, energy_distance
from sklearn_nsgf.networks import UNet

MEASURES = {
    "draw": ["energy", "told apart", "nearest fitted", "seconds"],
    "label": ["accuracy", "spread", "nearest drawn", "nearest fitted", "energy", "seconds"],
    "style": ["class kept", "new style", "distance", "seconds"],
    "texture": ["class kept", "new style", "energy", "told apart", "seconds"],
    "photographs": [*Judge.MEASURES, "seconds"],
}
# These need more data than the digits of scikit-learn.
ON_FILES = ["texture", "photographs"]
N_DRAWN, N_IMAGES, N_PATCHES = 1000, 6000, 4000
TOPS = [0, 2, 4, 6]  # T-shirts, pullovers, coats, shirts
CROSS = ndimage.generate_binary_structure(2, 1)[np.newaxis]
# `small` makes the images that methods see of those that styles are made of.
Data = namedtuple("Data", "name images labels largest small cloths", defaults=[None])


def read_digits():
    images, labels = load_digits(return_X_y=True)
    images = ndimage.zoom(images.reshape(-1, 8, 8), (1, 2, 2), order=1)
    return Data("digits", images, labels, 16, lambda images: images)


def read_training(folder, name):
    """Training images and their labels."""
    return (read_idx(folder / name / f"train-{part}-ubyte.gz") for part in ("images-idx3", "labels-idx1"))


def read_mnist(folder, seed, name):
    """A draw of the training images for each seed."""
    images, labels = read_training(folder, name)
    chosen = np.random.default_rng(seed).permutation(len(images))[:N_IMAGES]
    return Data(name, images[chosen].astype(float), labels[chosen].astype(int), 255, pool)


def read_digits_and_cloths(folder, seed):
    """A cloth for each digit: the middle 14 x 14 pixels of a garment that is neither black nor plain."""
    images, kinds = read_training(folder, "fashion_mnist")
    cloths = images[np.isin(kinds, TOPS), 7:21, 7:21] / 255
    cloths = cloths[(cloths.mean(axis=(1, 2)) > 0.3) & (cloths.std(axis=(1, 2)) > 0.15)]
    chosen = np.random.default_rng(seed).permutation(len(cloths))[:N_IMAGES]
    return read_mnist(folder, seed, "mnist")._replace(cloths=cloths[chosen])


def pool(images):
    n, height, width = images.shape
    return images.reshape(n, height // 2, 2, width // 2, 2).mean(axis=(2, 4))


def unchanged(images):
    return images


def thin(images):
    return ndimage.grey_erosion(images, footprint=CROSS)


def bold(images):
    return ndimage.grey_dilation(images, footprint=CROSS)


def slanted(images, slope=0.5):
    shear, shift = [[1, 0], [slope, 1]], [0, -slope * (images.shape[1] - 1) / 2]
    return np.stack([ndimage.affine_transform(image, shear, shift, order=1) for image in images])


def slanted_and_bold(images):
    return slanted(bold(images))


STYLES = {
    "thin to bold": (thin, bold),
    "upright to slanted": (unchanged, slanted),
    "upright to slanted and bold": (unchanged, slanted_and_bold),
}


def flat(images):
    return images.reshape(len(images), -1)


def nearest(rows, fitted, n=1):
    """Mean distance to the nearest row; the second nearest (n=2) leaves out the row itself."""
    return NearestNeighbors(n_neighbors=n).fit(fitted).kneighbors(rows)[0][:, n - 1].mean()


def timed(task):
    start = time.process_time()
    with warnings.catch_warnings():
        # Small samples: the linear map is kept, which the table shows.
        warnings.simplefilter("ignore")
        return task(), time.process_time() - start


def original(data):
    """Images without the enlargement of the digits."""
    return load_digits().images if data.name == "digits" else data.small(data.images)


def small_unet(event_shape):
    return UNet(event_shape, n_channels=16, channel_multipliers=(1, 2), attention_levels=())


def draw_mixture(rows, seed):
    """Of 32 normals: cross-validated likelihood prefers 4, whose energy distance is four times as large."""
    model = GaussianMixture(32, reg_covar=1e-3 * rows.var(axis=0).mean(), random_state=seed)
    return model.fit(rows).sample(N_DRAWN)[0]


def run_draw(data, seed):
    train, test = train_test_split(np.rint(original(data)), test_size=1 / 3, random_state=seed)
    network = {"network": small_unet, "learning_rate": 0.003, "batch_size": 64, "max_iter": 400}
    options = {**network, "n_couplings": 64, "random_state": seed}
    straight = FlowMatchingTransport(**options)
    flow = NSGFPlusPlus(**options, n_flows=16)

    def draw(est):
        return est.sample(N_DRAWN, random_state=seed)

    euler, heun = {"solver": "euler"}, {"solver": "heun"}
    methods = {
        "held out": lambda: test,
        "mixture": lambda: draw_mixture(flat(train), seed),
        "start": lambda: draw(FlowMatchingTransport(network=small_unet, max_iter=0).fit(train)),
        "flow matching, 6 Euler": lambda: draw(straight.set_params(**euler, n_steps=6).fit(train)),
        "flow matching, 6 Heun": lambda: draw(straight.set_params(**heun, n_steps=3)),
        "NSGF++, 6 Euler": lambda: draw(flow.set_params(**euler, n_straight_steps=4).fit(train)),
        "NSGF++, 6 Heun": lambda: draw(flow.set_params(**heun, n_sinkhorn_steps=1, n_straight_steps=2)),
    }
    fitted, held_out = flat(train), flat(test)
    unit, real = np.sqrt(held_out.var(axis=0).mean()), nearest(held_out, fitted)
    for name, method in methods.items():
        drawn, seconds = timed(method)
        drawn = flat(np.clip(np.rint(drawn), 0, data.largest))
        reference = fitted if name == "held out" else held_out
        energy = energy_distance(drawn / unit, reference / unit)
        told_apart = classifier_two_sample_test(drawn, reference)
        yield name, energy, told_apart, nearest(drawn, fitted) / real, seconds


def run_label(data, seed):
    rows, labels = flat(original(data)), data.labels
    train, test, y, y_test = train_test_split(
        rows, labels, test_size=1 / 3, stratify=labels, random_state=seed
    )
    classifier = SVC(C=10).fit(train, y)
    order = np.argsort(y_test, kind="stable")
    test, y_test = test[order], y_test[order]
    rng = np.random.default_rng(seed)

    def by_class(draw):
        return lambda: np.concatenate([draw(train[y == c], (y_test == c).sum()) for c in np.unique(y)])

    def normal(rows, n):
        model = LedoitWolf().fit(rows)
        return rng.multivariate_normal(model.location_, model.covariance_, n)

    def kernel(rows, n):
        grid = {"bandwidth": rows.std() * np.geomspace(0.02, 1, 9)}
        return (
            GridSearchCV(KernelDensity(), grid, cv=3).fit(rows).best_estimator_.sample(n, random_state=seed)
        )

    def draw(est):
        return est.sample(len(y_test), labels=y_test, random_state=seed)

    options = {"label_mode": "condition", "standardize": False, "max_iter": 3000, "random_state": seed}
    sizes = {"coupling_batch_size": 128, "n_couplings": 64}
    straight = FlowMatchingTransport(**options, **sizes, n_steps=8)
    flow = NSGFPlusPlus(**options, **sizes, n_flows=16, n_sinkhorn_steps=1)
    methods = {
        "held out": lambda: test,
        "normal": by_class(normal),
        "kernel": by_class(kernel),
        "flow matching, 8": lambda: draw(straight.fit(train, y)),
        "NSGF++, 8 Euler": lambda: draw(flow.set_params(n_straight_steps=7).fit(train, y)),
        "NSGF++, 8 Heun": lambda: draw(flow.set_params(solver="heun", n_straight_steps=3)),
    }
    real = measures_of_classes(test, y_test, train, y)
    unit = np.sqrt(test.var(axis=0).mean())
    for name, method in methods.items():
        drawn, seconds = timed(method)
        drawn = np.clip(drawn, 0, data.largest)
        ratios = measures_of_classes(drawn, y_test, train, y) / real
        reference, y_reference = (train, y) if name == "held out" else (test, y_test)
        energy = np.mean(
            [
                energy_distance(drawn[y_test == c] / unit, reference[y_reference == c] / unit)
                for c in np.unique(y)
            ]
        )
        yield name, classifier.score(drawn, y_test), *ratios.mean(axis=0), energy, seconds


def measures_of_classes(rows, labels, fitted, fitted_labels):
    """Spread, nearest of the same rows and nearest fitted row, for each class."""
    answer = []
    for c in np.unique(labels):
        own = rows[labels == c]
        spread_ = np.sqrt(own.var(axis=0).sum())
        answer.append([spread_, nearest(own, own, n=2), nearest(own, fitted[fitted_labels == c])])
    return np.array(answer)


def run_style(data, seed, style):
    old, new = (flat(data.small(make(data.images))) for make in STYLES[style])

    def distance(moved, images, truth):
        yield np.linalg.norm(moved - truth, axis=1).mean() / np.linalg.norm(images - truth, axis=1).mean()

    return restyle(data, seed, old, new, new, distance)


def run_texture(data, seed):
    images = data.small(bold(data.images))
    new, other = (flat(images * cloths) for cloths in (data.cloths, np.roll(data.cloths, 1, axis=0)))

    def likeness(moved, images, truth):
        unit = np.sqrt(truth.var(axis=0).mean())
        yield energy_distance(moved / unit, truth / unit)
        yield classifier_two_sample_test(np.rint(moved), np.rint(truth))

    return restyle(data, seed, flat(images), new, other, likeness)


def restyle(data, seed, old, new, true_images, compare):
    """All images in both styles; those that are fitted in the new style are others than in the old one."""
    labels = data.labels
    fitted, held_out = train_test_split(
        np.arange(len(labels)), test_size=1 / 3, stratify=labels, random_state=seed
    )
    in_old, in_new = train_test_split(fitted, test_size=0.5, stratify=labels[fitted], random_state=seed)
    both = np.concatenate([old[fitted], new[fitted]])
    read_class = SVC(C=10).fit(both, np.tile(labels[fitted], 2))
    read_style = SVC(C=10).fit(both, np.repeat([0, 1], len(fitted)))
    source, target, images = old[in_old], new[in_new], old[held_out]

    def linear(rows, source=source, target=target):
        reg = 0.03 * target.var()
        return ot.da.LinearTransport(reg=reg).fit(Xs=source, Xt=target).transform(Xs=rows)

    def linear_by_class():
        read, answer = read_class.predict(images), np.empty_like(images)
        for c in np.unique(labels):
            of_class = source[labels[in_old] == c], target[labels[in_new] == c]
            answer[read == c] = linear(images[read == c], *of_class)
        return answer

    def couple(estimator):
        est = estimator(label_mode="couple", standardize=False, random_state=seed)
        X, y, sample_domain = stack_domains(source, target, labels[in_old], labels[in_new])
        return lambda: est.fit(X, y, sample_domain=sample_domain).transform(images)

    methods = {
        "unchanged": lambda: images,
        "true image": lambda: true_images[held_out],
        "nearest image": lambda: nearest_rows(images, target),
        "linear": lambda: linear(images),
        "linear by class": linear_by_class,
        "NSGF": lambda: (
            SinkhornFlowTransport(standardize=False, random_state=seed).fit(source, target).transform(images)
        ),
        "NSGF, coupled": couple(SinkhornFlowTransport),
        "NSGF++, coupled": couple(NSGFPlusPlus),
        "flow matching, coupled": couple(FlowMatchingTransport),
    }
    for name, method in methods.items():
        moved, seconds = timed(method)
        moved = np.clip(moved, 0, data.largest)
        kept, in_style = read_class.score(moved, labels[held_out]), read_style.predict(moved).mean()
        yield name, kept, in_style, *compare(moved, images, new[held_out]), seconds


def nearest_rows(rows, fitted):
    return fitted[NearestNeighbors(n_neighbors=1).fit(fitted).kneighbors(rows)[1][:, 0]]


def run_photographs(data, seed):
    rng = np.random.default_rng(seed)
    day, sunset = data
    tiles = rng.permutation(N_TILES) < N_TILES / 3
    source, target = (rng.permutation(each.rows[~each.in_tiles(tiles)])[:N_PATCHES] for each in data)
    judge = Judge(source, target, day, day.in_tiles(tiles), sunset.rows[sunset.in_tiles(tiles)])

    def linear(source, target):
        return ot.da.LinearTransport(reg=1e-4).fit(Xs=source, Xt=target).transform

    def sinkhorn(source, target):
        """The best of a grid of reg for the rows that it is not fitted on."""
        n, candidates = N_PATCHES // 4, []
        for reg in (0.003, 0.01, 0.03, 0.1):
            transform = (
                ot.da.SinkhornTransport(reg_e=reg, norm="max").fit(Xs=source[:n], Xt=target[:n]).transform
            )
            moved = transform(Xs=source[n:])
            if np.isfinite(moved).all():
                candidates.append((energy_distance(moved, target[n:]), reg, transform))
        return min(candidates, key=lambda candidate: candidate[0])[2]

    def flow(estimator, **params):
        est = estimator(standardize=False, random_state=seed, **params)
        return lambda source, target: est.fit(source, target).transform

    def colours(fit):
        move = fit(source[:, MIDDLE], target[:, MIDDLE])
        return move(day.picture.reshape(-1, 3)).reshape(day.picture.shape)

    def patches(fit, columns=COLOURS):
        return day.picture_of(fit(source[:, columns], target[:, columns])(day.rows[:, columns]))

    methods = {
        "unchanged": lambda: day.picture,
        "nearest patch, place": lambda: day.picture_of(nearest_rows(day.rows, target)),
        "linear, colours": partial(colours, linear),
        "linear, patches": partial(patches, linear),
        "linear, patches, place": partial(patches, linear, PATCH),
        "POT Sinkhorn, patches, place": partial(patches, sinkhorn, PATCH),
        "NSGF, colours": partial(colours, flow(SinkhornFlowTransport)),
        "NSGF, patches": partial(patches, flow(SinkhornFlowTransport)),
        "NSGF, patches, place": partial(patches, flow(SinkhornFlowTransport), PATCH),
        "NSGF++, patches, place": partial(patches, flow(NSGFPlusPlus), PATCH),
        "flow matching, patches, place": partial(patches, flow(FlowMatchingTransport), PATCH),
        "NSGF, blur .2, patches, place": partial(patches, flow(SinkhornFlowTransport, blur=0.2), PATCH),
        "NSGF++, blur .2, patches, place": partial(patches, flow(NSGFPlusPlus, blur=0.2), PATCH),
    }
    yield "sunset", *judge.of_sunset(), 0.0
    pictures = {}
    for name, method in methods.items():
        moved, seconds = timed(method)
        pictures[name] = np.clip(moved, 0, 1)
        yield name, *judge(pictures[name]), seconds
    if seed == 0:
        draw_pictures({**pictures, "sunset": sunset.picture}, "photographs.png")


RUNS = {
    "draw": run_draw,
    "label": run_label,
    **{f"style: {style}": partial(run_style, style=style) for style in STYLES},
    "texture": run_texture,
    "photographs": run_photographs,
}


def read(task, name, folder, seed):
    if task == "photographs":
        paths = (folder / "photos" / f"ocean_{hour}.jpg" for hour in ("day", "sunset"))
        return [Patches(read_photograph(path)) for path in paths]
    if task == "texture":
        return read_digits_and_cloths(folder, seed)
    return read_digits() if folder is None else read_mnist(folder, seed, name)


def main():
    parser = make_parser(__doc__, seeds=5, data="optional")
    parser.add_argument("--fashion", action="store_true", help="Fashion-MNIST in place of MNIST")
    parser.add_argument("--tasks", nargs="+", choices=MEASURES, default=["draw", "label", "style"])
    arguments = parser.parse_args()
    if arguments.data is None and set(arguments.tasks) & set(ON_FILES):
        parser.error(f"{' and '.join(ON_FILES)} need --data")
    results = ResultsFile("data", "task", "seed", "method", "measure", "value", n_keys=5)
    images = "digits" if arguments.data is None else "fashion_mnist" if arguments.fashion else "mnist"
    runs = {task: run for task, run in RUNS.items() if task.split(":")[0] in arguments.tasks}
    for task, run in runs.items():
        measures = MEASURES[task.split(":")[0]]
        name = {"texture": "mnist", "photographs": "ocean"}.get(task, images)
        for seed in map(str, range(arguments.seeds)):
            if not any(key[:3] == (name, task, seed) for key in results.rows):
                data = read(task, name, arguments.data, int(seed))
                # A seed is written at once: all of it is there, or nothing.
                for method, *values in list(run(data, int(seed))):
                    for measure, value in zip(measures, values, strict=True):
                        results.write(name, task, seed, method, measure, float(value))
        print_table(results, name, task, measures)


def print_table(results, name, task, measures):
    """Mean and standard deviation over the seeds."""
    found = {}
    for (*key, _, method, measure), (value,) in results.rows.items():
        if key == [name, task]:
            found.setdefault(method, {}).setdefault(measure, []).append(value)
    print_row(f"{name}, {task}", measures, 17, 34)
    for method, values in found.items():
        print_row(f"  {method}", [spread(values[measure]) for measure in measures], 17, 34)


if __name__ == "__main__":
    main()
