"""The classes that occur, and the colours that they share."""

# Names and numbers (1 to 150, in the order of objectInfo150.csv) are those of mmseg's ADE20KDataset; 0 is unlabelled.
CLASSES_USED = {
    'wall': 1, 'building': 2, 'sky': 3, 'floor': 4, 'tree': 5, 'ceiling': 6, 'road': 7, 'windowpane': 9, 'grass': 10,
    'sidewalk': 12, 'person': 13, 'mountain': 17, 'car': 21, 'water': 22, 'painting': 23, 'fence': 33,
    'signboard': 44, 'streetlight': 88,
}
UNLABELLED = 0
(WALL, BUILDING, SKY, FLOOR, TREE, CEILING, ROAD, WINDOW, GRASS,
 SIDEWALK, PERSON, MOUNTAIN, CAR, WATER, PAINTING, FENCE,
 SIGNBOARD, STREETLIGHT) = CLASSES_USED.values()

# Classes draw from shared palettes, so that a colour is a hint and not an answer.
STONE = ((128, 128, 128), (152, 147, 140), (96, 98, 103), (178, 173, 164), (112, 106, 100), (140, 138, 146))
CLAY = ((150, 92, 72), (172, 128, 92), (122, 88, 64), (190, 162, 124), (140, 110, 90))
FOLIAGE = ((70, 105, 45), (92, 124, 55), (52, 86, 50), (116, 128, 60), (80, 100, 70))
AUTUMN = ((160, 118, 48), (150, 82, 40), (132, 112, 60))
VIVID = ((180, 32, 36), (36, 72, 150), (226, 226, 222), (32, 34, 38), (132, 136, 142), (205, 172, 44), (42, 112, 72),
         (94, 46, 92), (120, 160, 200))
SKIN = ((226, 186, 160), (196, 146, 112), (140, 96, 70), (92, 62, 46))
# (zenith, horizon) of clear, overcast, evening, dusk, white and deep blue skies.
SKIES = (((74, 124, 202), (182, 208, 232)), ((146, 152, 160), (206, 206, 206)), ((96, 98, 160), (240, 176, 120)),
         ((62, 72, 112), (150, 142, 152)), ((205, 210, 215), (232, 232, 230)), ((40, 90, 170), (130, 175, 220)))
