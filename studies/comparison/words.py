"""Numbers, differences and machines in words."""
import statistics

# With two runs a side Welch's interval has at most two degrees of freedom and covers almost anything.
FEW_SEEDS = 3


def number(value, digits=2):
    return '–' if value is None else f'{value:.{digits}f}'


def signed(value):
    return f'{value:+.2f}'


def interval_text(difference):
    return '–' if difference.low is None else f'{signed(difference.low)} to {signed(difference.high)}'


def verdict(difference, name, reference):
    if difference.low is None:
        return 'not tested'
    if not difference.shown:
        return 'no difference shown'
    if abs(difference.value) < 0.005:  # as zero as the table shows it
        return 'no difference worth showing'
    return f'{name if difference.value > 0 else reference} is higher'


def verdict_over_seeds(difference, runs, reference_runs, name, reference):
    """:func:`verdict`, but where a side has fewer than :data:`FEW_SEEDS` runs a difference not shown says nothing."""
    if difference.low is not None and not difference.shown and min(runs, reference_runs) < FEW_SEEDS:
        return 'too few seeds to tell'
    return verdict(difference, name, reference)


def listing(parts):
    parts = list(parts)
    return parts[0] if len(parts) == 1 else f'{", ".join(parts[:-1])} and {parts[-1]}'


def values_of(candidate, metric):
    return [run['metrics'][metric] for run in candidate['runs']]


def mean_text(values):
    mean = number(statistics.fmean(values))
    return f'{mean} ± {number(statistics.stdev(values))}' if len(values) > 1 else mean


def runs_text(n, m):
    return 'one run each' if n == m == 1 else f'{n} runs each' if n == m else f'{n} and {m} runs'


def machine_text(origin):
    cores = origin.get('cpu_cores', origin.get('cpu_count', '?'))
    return (f'{origin.get("device_name", "unknown")} ({origin.get("device", "unknown")}), {cores} processor cores, '
            f'{origin.get("threads", "?")} thread(s) used by torch, {origin.get("platform", "unknown")}')


def versions_text(origin):
    return ', '.join(f'{name} {version}' for name, version in origin.get('versions', {}).items())
