"""The claims, each with where it is from, the command that measures it, its figures and its rule.

Sources: the paper, arXiv:2303.16900, with its figures in :mod:`studies.paper`; the README of sail-sg/inceptionnext. Two
texts have no public address, which the page says, and are called what they are: one that times factorized convolutions,
one that summarizes the paper.
"""
from collections.abc import Callable
from typing import NamedTuple

from ..paper import IMAGENET_TOP1, SEMANTIC_FPN, UPERNET
from . import figures as f
from .operators import FACTORIZED, REASONS, REMARKS, factorized_figures, reason_figures, reason_verdict
from .rules import FAILS, AtLeast, Changes, ChangesNot, Equal, verdict

WRITE_UP = 'write-up on factorized convolutions, not public'
SUMMARY = 'summary of the paper, not public'
README = 'README of sail-sg/inceptionnext: A100, fp32, batch 128'
ABLATIONS = 'paper, ablations of InceptionNeXt-T'
SPEED, OPERATORS, SWEEP = 'python -m studies speed', 'python -m studies operators', 'python -m studies ablations'
GPU = 'make gpu'
UNTESTED = 'cannot be tested here'


class Claim(NamedTuple):
    """One claim.

    Attributes:
        key (str): For other modules and tests.
        claim, source, command (str): In one line each.
        figures (Callable): From :class:`.figures.Results` to a list of :class:`.figures.Figure`.
        rule: Of :mod:`.rules`; None where no figure decides.
        remark (str | Callable): What is to be said beside the verdict; of the results, where it has figures.
        said (tuple[str, str] | None): The verdict, where no figure decides it.
        decide (Callable | None): Of the results, the verdict, where the study has rules of its own.
    """
    key: str
    claim: str
    source: str
    command: str
    figures: Callable = lambda results: []
    rule: object = None
    remark: str | Callable = ''
    said: tuple | None = None
    decide: Callable | None = None

    def verdict(self, results):
        if self.said:
            return self.said
        if self.decide:
            return self.decide(results)
        return verdict(self.figures(results), self.rule)


def untested(key, claim, source, command, why, figures=lambda results: []):
    return Claim(key, claim, source, command, figures, said=(UNTESTED, why))


FALLS, RISES, FALLS_NOT, RISES_NOT = Changes(False), Changes(True), ChangesNot(False), ChangesNot(True)


def without(*names):
    """Variants of InceptionNeXt-A less InceptionNeXt-A."""
    return lambda results: f.ablated(results, 'main', *names)


def ratio(share):
    """A ratio less 1/8, that of T."""
    return lambda results: f.ablated(results, 'pairs', f'ratio {share} − 1/8')


def norms(results):
    """BatchNorm less LayerNorm."""
    return f.ablated(results, 'factorial', 'BatchNorm − LayerNorm')


def best_of_tables():
    return max(row.miou for row in (*UPERNET, *SEMANTIC_FPN))


T, CONVNEXT_T = (next(row for row in UPERNET if (row.family, row.arch) == (family, 'tiny'))
                 for family in ('InceptionNeXt', 'ConvNeXt'))
TOP1 = IMAGENET_TOP1['inceptionnext_tiny'], IMAGENET_TOP1['convnext_tiny_1k_224_ema']
DRAWN = ('On drawn scenes, from scratch, by [the protocol](studies/ablations.md): cross-entropy in nats, of which less '
         'is better, and mIoU in points beside it.')
BACKBONES = 'InceptionNeXt-T over ConvNeXt-T, backbones, 512×512, on the CPUs measured; the A100 is not among them.'
SAME_HEAD = 'InceptionNeXt-T over ConvNeXt-T, whole networks with the same head.'
NEEDS_IMAGENET = 'it takes ImageNet and a cluster; nothing here was trained on it'
CIRCULATION = (
    Claim('55.4', 'UperNet with InceptionNeXt reaches 55.4 mIoU on ADE20K', SUMMARY,
          'python tools/readme.py',
          lambda results: [f.counted('highest mIoU of Tables 5 and 6', best_of_tables())],
          said=(FAILS, f'no row of the tables has it; InceptionNeXt-T has {T.miou}')),
    Claim('shares', 'an eighth of the channels a branch: 3/8 are convolved, 5/8 pass', 'paper, Inception depthwise '
          'convolution', 'python -m studies replacement', f.shares, Equal((1, 3, 5), 0)),
    Claim('7/8', '1/8 of the channels is convolved and 7/8 pass', SUMMARY, 'python -m studies replacement', f.shares,
          Equal((1, 1, 7), 0), 'There are three convolved branches of 1/8 each.'),
    Claim('two passes', 'bands run one after the other, in two passes over the same channels', SUMMARY,
          'pytest tests/models -k timm', said=(
              FAILS, 'each band has its own eighth of the channels, and all run side by side; bands in sequence are an '
              "ablation of the paper, 82.1 top-1 for 82.3. Outputs are those of timm's network, by a test")))
FACTORIZED_CLAIMS = tuple(
    Claim(key, claim, WRITE_UP, OPERATORS, lambda results, key=key: factorized_figures(results, key), AtLeast(2.0),
          'Time over that of n×n.') for key, claim in FACTORIZED.items())
REASON_CLAIMS = tuple(
    Claim(key, claim, WRITE_UP, OPERATORS, lambda results, key=key: reason_figures(results, key),
          remark=REMARKS.get(key, ''),
          decide=lambda results, key=key: reason_verdict(results, key)) for key, claim in REASONS.items())
PAPER = (
    Claim('train 1.6', 'InceptionNeXt-T trains 1.6 times as fast as ConvNeXt-T', f'{README}: 901 and 575 images/s',
          f'{SPEED} --only backbone', lambda results: f.mixers(results, 'backbone', 'train'), AtLeast(1.57),
          lambda results: f'{BACKBONES} {f.not_mixers_alone(results)}'.strip()),
    Claim('infer 1.2', 'InceptionNeXt-T infers 1.2 times as fast as ConvNeXt-T', f'{README}: 2900 and 2413 images/s',
          f'{SPEED} --only backbone', lambda results: f.mixers(results, 'backbone', 'infer'), AtLeast(1.20),
          BACKBONES),
    untested('82.3', f'{TOP1[0]} top-1 on ImageNet-1k, against {TOP1[1]} of ConvNeXt-T', 'paper, ImageNet-1k models',
             'mim train mmpretrain configs/classification/inceptionnext_t_imagenet.py', NEEDS_IMAGENET),
    untested('47.9', f'{T.miou} mIoU with UperNet on ADE20K, against {CONVNEXT_T.miou} of ConvNeXt-T',
             'paper, Table 5: multi-scale with flip',
             'python tools/train.py configs/upernet_inceptionnext_t_ade20k.py',
             'it takes ADE20K, ImageNet weights and GPU-weeks; nothing here was trained on it'),
    Claim('cost', f'UperNet-T has {T.parameters} M parameters and {T.macs} G MACs at 512×2048, with ConvNeXt-T '
          f'{CONVNEXT_T.parameters} M and {CONVNEXT_T.macs} G', 'paper, Table 5', 'python -m studies complexity',
          lambda results: [*f.costs(results, 'InceptionNeXt'), *f.costs(results, 'ConvNeXt')],
          Equal((T.parameters, T.macs, CONVNEXT_T.parameters, CONVNEXT_T.macs), 0.6),
          'A count agrees within 0.6 of the last digit that the paper prints.'),
    Claim('branches', 'each branch is needed: without it accuracy falls',
          f'{ABLATIONS}: 81.9 without a band, 82.3 with both', SWEEP,
          without('no_horizontal', 'no_vertical', 'no_square'), FALLS, DRAWN),
    Claim('ratio', 'a branch ratio of 1/16 is worse than 1/8', ABLATIONS, SWEEP, ratio('1/16'), FALLS, DRAWN),
    Claim('ratio 1/4', 'a branch ratio of 1/4 gains nothing over 1/8', ABLATIONS, SWEEP, ratio('1/4'), RISES_NOT,
          DRAWN),
    Claim('parallel', 'parallel bands are better than bands in sequence', f'{ABLATIONS}: 82.3 and 82.1', SWEEP,
          without('sequential'), FALLS, DRAWN),
    Claim('mixer', 'Inception in the place of 7×7 loses no accuracy, the norm the same', 'paper, Inception depthwise '
          'convolution', SWEEP, lambda results: f.ablated(results, 'factorial', 'Inception − 7×7'), FALLS_NOT, DRAWN),
    Claim('norm', 'BatchNorm in the place of LayerNorm loses no accuracy', 'paper, MetaNeXt block: ConvNeXt has '
          'LayerNorm, InceptionNeXt BatchNorm', SWEEP, norms, FALLS_NOT,
          'A pooled interval is of a comparison that was picked after seeing all variants.'),
    Claim('both', 'InceptionNeXt loses no accuracy against ConvNeXt, on drawn scenes',
          f'paper: {TOP1[0]} and {TOP1[1]} top-1 on ImageNet-1k', SWEEP,
          lambda results: f.ablated(results, 'factorial', 'InceptionNeXt − ConvNeXt'), FALLS_NOT, DRAWN),
    Claim('identity', 'first experiments: with the identity in the place of the convolution accuracy falls',
          SUMMARY, SWEEP, without('identity'), FALLS, DRAWN),
    Claim('3x3', 'first experiments: 3×3 in the place of 7×7 loses accuracy',
          f'{README}: ConvNeXt-T, {IMAGENET_TOP1["convnext_tiny_k3"]} for {TOP1[1]} top-1, 798 for 575 images/s', SWEEP,
          lambda results: f.ablated(results, 'pairs', '3×3 − 7×7'), FALLS,
          'That it is faster was not tested in ConvNeXt-T.'),
    untested('partial', 'first experiments: of 3×3 on a part of the channels, accuracy holds down to a quarter',
             f'README of sail-sg/inceptionnext: {IMAGENET_TOP1["convnext_tiny_k3"]} on all channels, '
             f'{IMAGENET_TOP1["convnext_tiny_k3_par1_4"]} on 1/4, {IMAGENET_TOP1["convnext_tiny_k3_par1_8"]} on 1/8, '
             f'{IMAGENET_TOP1["convnext_tiny_k3_par1_16"]} on 1/16',
             'python tools/train.py configs/upernet_convnext_t_k3_par1_4_ade20k.py', NEEDS_IMAGENET))
CARRIES_OVER = (
    Claim('whole train', 'the gain in training, 1.6 times, is there in a whole UperNet, too', SUMMARY,
          f'{SPEED} --only main threads', lambda results: [
              *f.mixers(results, 'main', 'train'), *f.one_thread(results, 'train'),
              *f.whole_on_gpus(results, 'train')], AtLeast(1.57), SAME_HEAD),
    Claim('whole infer', 'so is the gain in inference, 1.2 times', SUMMARY, f'{SPEED} --only main threads',
          lambda results: [*f.mixers(results, 'main', 'infer'), *f.one_thread(results, 'infer'),
                           *f.whole_on_gpus(results, 'infer')], AtLeast(1.20), SAME_HEAD),
    Claim('accuracy', 'InceptionNeXt is more accurate than ConvNeXt on other data', SUMMARY,
          'python -m studies camvid_sequences', f.families, RISES,
          'CamVid, each of three sequences left out, both families with both norms; the summary says "as accurate, or '
          'more", and three sequences can show no "as". The older comparison, [camvid](results/camvid.md), decides '
          'nothing: the families differ in their norm there, and its validation images are of one sequence.'),
    Claim('architectures', 'Inception convolutions help other architectures', SUMMARY,
          'python -m studies generalization', lambda results: f.miou_difference(
              results, 'generalization_mini.json', 'upernet_timm_mobilenetv3_small_inception_mini',
              'upernet_timm_mobilenetv3_small_mini', 'MobileNetV3-small'), RISES,
          'mIoU in points on drawn scenes, 300 iterations. Speed: not measured.'),
    Claim('hardware', 'the gain, 1.2 times or more, holds on other hardware: GPUs', SUMMARY, GPU, f.on_gpus,
          AtLeast(1.20), 'Every machine that was measured is named in the rows above. It is decided by backbones, '
          'which were not measured on a GPU; whole networks were, and stand there: [gpu](gpu.md).'),
    Claim('scale', 'it holds at larger scale: larger images, inference', SUMMARY, f'{SPEED} --only growth', f.growing,
          AtLeast(1.20), 'Whole network, accelerated, inference. S and B were not measured.'),
    untested('video', 'it holds for video', SUMMARY, 'inceptionnext-seg predict --video',
             'there is no video network here: frames are segmented one by one'))
GROUPS = {'In circulation': CIRCULATION, 'Factorized convolutions: is n×1 → 1×n slower?': FACTORIZED_CLAIMS,
          'Factorized convolutions: why?': REASON_CLAIMS, 'The paper': PAPER,
          'Does it carry over?': CARRIES_OVER}
CLAIMS = {claim.key: claim for group in GROUPS.values() for claim in group}
