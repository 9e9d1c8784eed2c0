"""Photographs as patches around each pixel, with the place of the pixel, and measures of moved ones."""

import numpy as np
from scipy import ndimage
from sklearn.svm import SVC

from sklearn_nsgf.metrics import energy_distance

SHRINK, SIZE = 4, 3
# Tiles in the width and in the height.
N_SIDE = 16
N_TILES = N_SIDE**2
# Places have about the variance of all colours of a patch together.
PLACE = 2.0
# Columns: the red values of a patch, the green ones, the blue ones, and the place.
COLOURS, PLACES, PATCH = slice(3 * SIZE**2), slice(3 * SIZE**2, None), slice(None)
MIDDLE = np.arange(3) * SIZE**2 + SIZE**2 // 2


def read_photograph(path):
    """Values from 0 to 1, a quarter of the width and the height."""
    from matplotlib import pyplot as plt

    picture = plt.imread(path) / 255
    height, width = (n // SHRINK for n in picture.shape[:2])
    picture = picture[: height * SHRINK, : width * SHRINK]
    return picture.reshape(height, SHRINK, width, SHRINK, 3).mean(axis=(1, 3))


class Patches:
    """Rows of the colours around each pixel and its place, from 0 to PLACE; pixels at the rim have none."""

    def __init__(self, picture):
        self.picture = picture
        self.shape = picture.shape[0] - SIZE + 1, picture.shape[1] - SIZE + 1
        places = np.moveaxis(np.indices(self.shape), 0, -1) / np.array(self.shape)
        self.rows = np.column_stack([patches_of(picture), PLACE * places.reshape(-1, 2)])

    def in_tiles(self, tiles):
        """Mask of the rows in some of the tiles. Single rows would not do: neighbours are alike."""
        line, column = np.floor(self.rows[:, PLACES].T / PLACE * N_SIDE).astype(int)
        return tiles[line * N_SIDE + column]

    def picture_of(self, rows):
        """Each pixel is the mean of its colours in all patches that have it."""
        height, width = self.shape
        patches = rows[:, COLOURS].reshape(height, width, 3, SIZE, SIZE)
        total, count = np.zeros_like(self.picture), np.zeros_like(self.picture)
        for i, j in np.ndindex(SIZE, SIZE):
            total[i : i + height, j : j + width] += patches[..., i, j]
            count[i : i + height, j : j + width] += 1
        return total / count


def patches_of(picture):
    windows = np.lib.stride_tricks.sliding_window_view(picture, (SIZE, SIZE), axis=(0, 1))
    return windows.reshape(-1, 3 * SIZE**2)


class Judge:
    """Measures of a moved photograph at the pixels that are held out."""

    MEASURES = ("gradients", "structure", "new style", "colours", "patches", "colours, place")

    def __init__(self, source, target, day, held_out, sunset_rows):
        self.day, self.held_out, self.target, self.sunset_rows = day, held_out, target, sunset_rows
        both = np.concatenate([source, target])[:, COLOURS]
        self.style = SVC(C=10).fit(both, np.repeat([0, 1], [len(source), len(target)]))
        self.unit = np.sqrt(sunset_rows[:, COLOURS].var(axis=0).mean())

    def __call__(self, moved):
        rows = np.column_stack([patches_of(moved), self.day.rows[:, PLACES]])[self.held_out]
        before, after = (each @ [0.299, 0.587, 0.114] for each in (self.day.picture, moved))
        gradients = [self._held_out(np.stack(np.gradient(each), axis=-1)).ravel() for each in (before, after)]
        structure = self._held_out(local_correlation(before, after)[..., np.newaxis])
        return np.corrcoef(gradients)[0, 1], structure.mean(), *self._style(rows)

    def of_sunset(self):
        """The best that can be expected of the style; the structure is another one."""
        *style, _ = self._style(self.target)
        return np.nan, np.nan, *style, np.nan  # fitted patches have other places

    def _held_out(self, values):
        rim = SIZE // 2
        return values[rim:-rim, rim:-rim].reshape(-1, values.shape[-1])[self.held_out]

    def _style(self, rows):
        yield self.style.predict(rows[:, COLOURS]).mean()
        for select in (self._middle, self._colours, self._middle_and_place):
            yield energy_distance(select(rows), select(self.sunset_rows))

    def _middle(self, rows):
        return rows[:, MIDDLE] / self.unit

    def _colours(self, rows):
        return rows[:, COLOURS] / self.unit

    def _middle_and_place(self, rows):
        """Height and width count like a colour."""
        return np.column_stack([self._middle(rows), rows[:, PLACES] / self.sunset_rows[:, PLACES].std()])


def local_correlation(x, y, sigma=1.5, constant=0.03**2 / 2):
    """Structure factor of the structural similarity, with its usual constants."""

    def mean(values):
        return ndimage.gaussian_filter(values, sigma)

    covariance = mean(x * y) - mean(x) * mean(y)
    variances = [np.maximum(mean(each**2) - mean(each) ** 2, 0) for each in (x, y)]
    return (covariance + constant) / (np.sqrt(variances[0] * variances[1]) + constant)


def draw_pictures(pictures, path, n_columns=3):
    from matplotlib import pyplot as plt

    n_lines = -(-len(pictures) // n_columns)
    figure, axes = plt.subplots(
        n_lines, n_columns, figsize=(4 * n_columns, 2.9 * n_lines), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, picture) in zip(axes.flat, pictures.items(), strict=False):
        axis.imshow(picture)
        axis.set_title(title)
    figure.savefig(path, dpi=80)
    plt.close(figure)
