"""Names and numbers are ADE20K's."""
import csv

from mmseg.datasets import ADE20KDataset

from inceptionnext_seg.data.mini import CLASSES_USED


def test_class_names_and_numbers_are_those_of_mmseg():
    classes = ADE20KDataset.METAINFO['classes']
    assert {name: classes.index(name) + 1 for name in CLASSES_USED} == CLASSES_USED


def test_class_names_and_numbers_are_those_of_objectinfo150(ade20k_sample):
    with (ade20k_sample / 'objectInfo150.csv').open(encoding='utf-8') as file:
        names = {int(row['Idx']): row['Name'].split(';') for row in csv.DictReader(file)}
    for name, label in CLASSES_USED.items():
        assert name in names[label] or (name == 'streetlight' and 'street' in names[label])
