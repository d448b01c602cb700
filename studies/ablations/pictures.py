"""Two pictures: what each change costs, and how the pilot's curves went."""
from ..comparison.pictures import COLOURS, new_figure, png
from ..trainings import ENDPOINTS
from .arms import MAIN, PILOT, REFERENCE, TITLES
from .decisions import mean_curve


def effects_picture(found, bounds):
    """Differences to Inception with simultaneous intervals, the band of equivalence grey; None without any."""
    if not found:
        return None
    arms = [arm for arm in MAIN if arm in found['mIoU'][0].means and arm != REFERENCE]
    figure, axes = new_figure(len(ENDPOINTS), 7.2, 1.3 + 0.33 * len(arms))
    for ax, (name, title) in zip(axes, ENDPOINTS.items(), strict=True):
        bound, comparisons = bounds.get(name), {each.name: each for each in found[name][1]}
        if bound:
            ax.axvspan(-bound, bound, color='#dddddd', linewidth=0, zorder=0)
        ax.axvline(0, color='#333333', linewidth=1)
        for row, arm in enumerate(arms):
            each = comparisons[arm]
            ax.errorbar(each.difference, row, xerr=[[each.difference - each.low], [each.high - each.difference]],
                        fmt='o', color=COLOURS[0], capsize=3, linewidth=1.5, markersize=5)
        ax.set_yticks(range(len(arms)), [MAIN[arm] for arm in arms] if ax is axes[0] else [''] * len(arms))
        ax.invert_yaxis()
        ax.grid(False, axis='y')
        ax.set(xlabel=f'{title}, minus Inception\'s')
    axes[0].set_title('← better', fontsize=9, loc='left')
    axes[1].set_title('better →', fontsize=9, loc='right')
    figure.suptitle('What does each change to the token mixer cost? (95 %; grey: a point of mIoU, or what it is worth)',
                    fontsize=10)
    return png(figure)


def curves_picture(content):
    """Endpoints of the pilot's arms over iterations, with the length that was decided."""
    runs = {arm: [run for run in content['pilot'] if run['arm'] == arm] for arm in PILOT}
    if not all(runs.values()):
        return None
    figure, axes = new_figure(len(ENDPOINTS), 7.2, 3.0)
    for ax, (name, title) in zip(axes, ENDPOINTS.items(), strict=True):
        for colour, (arm, each) in zip(COLOURS, runs.items(), strict=False):
            for run in each:
                ax.plot(*zip(*((point['iteration'], point[name]) for point in run['curve']), strict=True), color=colour,
                        linewidth=0.6, alpha=0.5)
            ax.plot(*mean_curve(each, name), color=colour, linewidth=1.8, label=TITLES[arm])
        ax.axvline(content['plan']['iterations'], color='#333333', linewidth=1, linestyle=':')
        ax.set(xlabel='iteration', ylabel=title)
    axes[0].legend(frameon=False, fontsize=8)
    return png(figure)
