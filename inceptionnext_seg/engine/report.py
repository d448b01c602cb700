"""``report.html`` and ``report.json`` of a run: what a person looks at, during training and at its end."""
import heapq
import io
import os
import time
from pathlib import Path

import numpy as np
from mmengine.dist import all_gather_object, get_rank, get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from PIL import Image, ImageOps

from ..data.decoding import FORMATS
from ..errors import SettingError, UserError
from ..files import write_json, write_text
from .report_page import Content, WorstImage, iou_of, page

FORMAT = 1
TILE, GAP, QUALITY = 320, 4, 82
# Points of a curve: twice as many are thinned out to so many.
POINTS = 500


def confusion_of(label, prediction, classes):
    """Pixels of label (row) and prediction (column), (N, N); pixels whose label or prediction is no class do not
    count."""
    known = (label >= 0) & (label < classes) & (prediction >= 0) & (prediction < classes)
    places = classes * label[known].astype(np.int64) + prediction[known]
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


def score_of(confusion):
    """The mean IoU of an image over the classes that its label has, in per cent; None where it has none."""
    labelled = confusion.sum(1) > 0
    return float(iou_of(confusion)[labelled].mean()) if labelled.any() else None


def thumbnail(values):
    """A class map with a width of at most ``TILE``; classes are not mixed."""
    height, width = values.shape
    factor = min(1., TILE / width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(values.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))


def tiles(path, maps, palette):
    """Image, label and prediction side by side, a JPEG; None where the image cannot be read.

    Args:
        path (str): The image file.
        maps (list[ndarray]): Class maps (H, W), uint8; 255 is left as the image is.
        palette (list): RGB.
    """
    height, width = maps[0].shape
    try:
        with Image.open(path, formats=FORMATS) as file:
            file.draft('RGB', (2 * width, 2 * height))
            picture = ImageOps.exif_transpose(file).convert('RGB').resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    picture = np.asarray(picture, np.float32)
    colors = np.zeros((256, 3), np.float32)
    colors[:len(palette)] = palette
    shown = [picture]
    for values in maps:
        values = values if values.shape == (height, width) else np.asarray(
            Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST))
        shown.append(np.where((values < len(palette))[..., None], 0.4 * picture + 0.6 * colors[values], picture))
    gap = np.full((height, GAP, 3), 255, np.float32)
    strip = np.concatenate([shown[0], gap, shown[1], gap, shown[2]], 1)
    content = io.BytesIO()
    Image.fromarray(strip.round().astype(np.uint8)).save(content, 'JPEG', quality=QUALITY)
    return content.getvalue()


def thinned(points):
    """Every second point but the last, where there are twice as many as are shown."""
    return points if len(points) < 2 * POINTS else [*points[:-1:2], points[-1]]


@HOOKS.register_module()
class ReportHook(Hook):
    """Writes ``report.html`` into the work_dir after each validation and at the end of training, and its numbers as
    ``report.json``.

    ``custom_hooks = [dict(type='ReportHook')]``. The page has loss and mIoU over iterations and minutes, IoU of each
    class, the confusion matrix, and the worst validation images under their labels and predictions, in one file, which
    is replaced when the new one is whole. It is for segmentors of MMSegmentation, whatever the metric. A resumed run
    goes on with its curves. Of several processes each counts its images, and the first writes.

    Args:
        worst (int): Images that are shown.
        interval (int): Iterations that a point of the loss's curve is the mean of.
        name (str): The file, in the work_dir.
        clock (Callable): Seconds; for tests.
    """

    priority = 'LOW'  # after RuntimeInfoHook, which keeps the losses

    def __init__(self, worst=10, interval=10, name='report.html', clock=time.monotonic):
        if min(worst, interval) < 1 or Path(name).name != name or not name.endswith('.html'):
            raise SettingError(f'ReportHook has worst={worst}, interval={interval}, name={name!r}; expected: whole '
                               'numbers of at least 1, and a file name that ends in .html.')
        self.worst, self.interval, self.name, self.clock = worst, interval, name, clock
        self.before, self.begun = 0., clock()
        self.losses, self.validations = [], []
        self.confusion, self.candidates, self.counted, self.last = None, [], 0, None
        self.seen = self.images = 0     # samples of this process, images of all
        self.finished = False

    def elapsed(self):
        return self.before + self.clock() - self.begun

    # Training

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        done = runner.iter + 1
        if done % self.interval == 0 and 'train/loss' in runner.message_hub.log_scalars:
            loss = runner.message_hub.get_scalar('train/loss').mean(self.interval)
            self.losses = thinned([*self.losses, [done, self.elapsed(), float(loss)]])

    # Validation

    def before_val_epoch(self, runner):
        classes = len(self.about(runner)[0])
        self.confusion, self.candidates, self.counted = np.zeros((classes, classes), np.int64), [], 0
        self.seen, self.images = 0, len(runner.val_dataloader.dataset)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for sample in outputs or ():
            # Samplers deal the images out in turns, and fill up the last turn with images of the first.
            place, self.seen = get_rank() + get_world_size() * self.seen, self.seen + 1
            if place >= self.images:
                continue
            found, label = (getattr(sample, name, None) for name in ('pred_sem_seg', 'gt_sem_seg'))
            if found is None or label is None:
                continue
            found, label = (each.data.squeeze(0).cpu().numpy() for each in (found, label))
            if found.shape != label.shape:
                continue
            confusion = confusion_of(label, found, len(self.confusion))
            self.confusion += confusion
            score = score_of(confusion)
            if score is None:
                continue
            # The place tells images of one score apart.
            self.counted += 1
            entry = (-score, -self.counted, str(sample.img_path), confusion, label, found)
            if len(self.candidates) < self.worst:
                heapq.heappush(self.candidates, self.small(entry))
            elif entry[:2] > self.candidates[0][:2]:
                heapq.heapreplace(self.candidates, self.small(entry))

    @staticmethod
    def small(entry):
        *rest, label, found = entry
        return (*rest, thumbnail(label), thumbnail(found))

    def after_val_epoch(self, runner, metrics=None):
        self.gather()
        iou = iou_of(self.confusion)
        known = iou[np.isfinite(iou)]
        if len(known):
            self.validations.append([runner.iter, self.elapsed(), float(known.mean())])
        self.last = self.confusion, sorted(self.candidates, key=lambda entry: entry[0], reverse=True)[:self.worst]
        self.write(runner)

    def gather(self):
        """Add up what the processes have."""
        if get_world_size() == 1:
            return
        every = all_gather_object((self.confusion, self.candidates))
        self.confusion = sum(confusion for confusion, _ in every)
        self.candidates = [entry for _, candidates in every for entry in candidates]

    def after_train(self, runner):
        self.finished = True
        self.write(runner)

    # Writing

    def about(self, runner):
        """Classes and palette of the validation images."""
        meta = getattr(runner.val_dataloader.dataset, 'metainfo', None) or {}
        classes = [str(name) for name in meta.get('classes') or ()]
        palette = [list(color) for color in meta.get('palette') or ()]
        # Without one, hues a golden angle apart, so that neighbours differ.
        palette += [self.hue(i) for i in range(len(palette), len(classes))]
        return classes, palette[:len(classes)]

    @staticmethod
    def hue(i):
        return list(Image.new('HSV', (1, 1), (round(i * 97.08) % 256, 190, 220)).convert('RGB').getpixel((0, 0)))

    @master_only
    def write(self, runner):
        classes, palette = self.about(runner) if runner.val_loop is not None else ([], [])
        confusion, candidates = self.last or (None, [])
        worst = [WorstImage(Path(path).name, -score, self.words(counts, classes), tiles(path, [label, found], palette))
                 for score, _, path, counts, label, found in candidates]
        path = Path(runner.work_dir) / self.name
        write_text(path, page(Content(
            Path(runner.work_dir).name, self.facts(runner), self.losses, self.validations, classes, palette, confusion,
            worst)))
        write_json(path.with_suffix('.json'), dict(
            config=os.path.relpath(runner.cfg.filename) if runner.cfg.filename else None, seed=runner.seed,
            finished=self.finished, iteration=runner.iter, seconds=self.elapsed(),
            validations=[dict(iteration=done, minutes=seconds / 60, mIoU=miou)
                         for done, seconds, miou in self.validations],
            losses=[dict(iteration=done, minutes=seconds / 60, loss=loss) for done, seconds, loss in self.losses
                    if np.isfinite(loss)],
            classes=classes, confusion=None if confusion is None else confusion.tolist()))

    def facts(self, runner):
        facts = [('state', 'finished' if self.finished else f'iteration {runner.iter} of {runner.max_iters}'),
                 ('minutes', f'{self.elapsed() / 60:.1f}'), ('seed', runner.seed)]
        if runner.cfg.filename:
            facts.append(('config', os.path.relpath(runner.cfg.filename)))
        if self.validations:
            best = max(self.validations, key=lambda entry: entry[2])
            facts += [('last mIoU', f'{self.validations[-1][2]:.2f} %'),
                      ('best mIoU', f'{best[2]:.2f} % at iteration {best[0]}, after {best[1] / 60:.1f} minutes')]
        return facts

    @staticmethod
    def words(confusion, classes):
        """What is wrong in an image most: the pair of classes with the most pixels."""
        wrong = confusion.copy()
        np.fill_diagonal(wrong, 0)
        if not wrong.any():
            return 'Nothing is wrong in it.'
        label, found = np.unravel_index(wrong.argmax(), wrong.shape)
        share = 100 * wrong[label, found] / confusion.sum()
        return f'Most of it: {classes[label]} taken for {classes[found]}, {share:.1f} % of its labelled pixels.'

    # What a checkpoint keeps

    def state_dict(self):
        return dict(format=FORMAT, elapsed=self.elapsed(), losses=[list(point) for point in self.losses],
                    validations=[list(point) for point in self.validations])

    def load_state_dict(self, state):
        try:
            points = {name: [[int(done), float(seconds), float(value)] for done, seconds, value in state[name]]
                      for name in ('losses', 'validations')}
            self.before = float(state['elapsed'])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the report's curves in the checkpoint cannot be used: {error}. Next: an earlier "
                            'checkpoint.') from error
        self.losses, self.validations = points['losses'], points['validations']
