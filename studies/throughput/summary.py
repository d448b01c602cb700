"""From the raw samples of a result file to the rows of a table. Needs no model, and so no mmseg."""
import statistics

from ..timing import median_interval, ratio
from .limits import limit_seconds


def best_layouts(results):
    """Of each candidate, the result in its faster layout, in the order of the candidates."""
    best = {}
    for result in results:
        kept = best.get(result['name'])
        if kept is None or statistics.median(result['seconds']) < statistics.median(kept['seconds']):
            best[result['name']] = result
    return list(best.values())


def summarize(run_result, layout=None):
    """A row a candidate: images/s with interval, ratio of images/s to the first with its own, × of limit, memory.

    Args:
        layout (str | None): Rows of this layout; None takes each candidate's better one, as the paper does.
    """
    results = [r for r in run_result['results'] if r['layout'] == layout] if layout else best_layouts(
        run_result['results'])
    batch, rows = run_result['setting']['batch_size'], []
    for result in results:
        time_interval = median_interval(result['seconds'])
        rows.append(dict(
            name=result['name'], label=result['label'], layout=result['layout'],
            images_per_s=batch / time_interval.median,
            images_per_s_interval=(batch / time_interval.high, batch / time_interval.low),
            # Speed over speed: the first one's time over this one's, round by round.
            speedup=None if result is results[0] else ratio(results[0]['seconds'], result['seconds']),
            times_of_limit=time_interval.median / limit_seconds(result['macs'], result['nbytes'], run_result['peaks']),
            peak_memory=result['peak_memory'], settled=result['settled']))
    return rows


def growth(result):
    """How cost grows: (mode, dtype) -> label -> sorted (megapixels of a step, median seconds), of whole segmentors.

    Only what was measured at three sizes or more, each candidate in its faster layout; of a size measured twice, the
    later.
    """
    found = {}
    for run_result in result['runs']:
        setting = run_result['setting']
        if setting['part'] != 'segmentor' or setting['compile']:
            continue
        pixels = setting['batch_size'] * setting['size'] * (setting.get('width') or setting['size'])
        lines = found.setdefault((setting['mode'], setting['dtype']), {})
        for row in summarize(run_result):
            lines.setdefault(row['label'], {})[pixels / 1e6] = setting['batch_size'] / row['images_per_s']
    found = {key: {label: sorted(points.items()) for label, points in lines.items() if len(points) >= 3}
             for key, lines in found.items()}
    return {key: lines for key, lines in found.items() if lines}
