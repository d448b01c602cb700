"""A folder with a dataset.json, for tests of what is made of it."""
from inceptionnext_seg.data.description import Description


def describe(folder, pixels=(900, 100), size=(96, 64), images=6, classes=('grass', 'cow'), suffix='.jpg',
             splits=('training', 'validation')):
    """Write the description alone; the folder."""
    folder.mkdir(exist_ok=True)
    split = dict(images=images, pixels=list(pixels), images_with=[images] * len(pixels), ignored=0)
    Description(folder, classes, [[9 * i, 200, 3] for i in range(len(classes))], suffix, '.png',
                dict.fromkeys(splits, split), 0, size, {}).write()
    return folder
