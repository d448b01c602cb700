"""Four kinds of scene: a street along and across the view, a landscape and a room."""
import numpy as np

from ...errors import UserError
from .buildings import building, buildings_along, fence, fence_across, house
from .camera import Scene, between, photograph
from .classes import CEILING, CLAY, FLOOR, ROAD, SIDEWALK, STONE, WALL, WATER
from .objects import (
    car,
    clutter,
    draw_far_to_near,
    furniture,
    painting,
    person,
    signboard,
    streetlight,
    tree,
    window,
)
from .random import Random, noise
from .surroundings import backdrop, grass, ground_texture, road, sidewalk, sky, water

DEFAULT_SIZE = (160, 224)
SMALLEST_SIDE = 32


def street_along(scene):
    """The camera looks down a street: facades, parks and fences on both sides in perspective."""
    random = scene.random
    road_half, walk = random.integer(2600, 6000), random.integer(1500, 3800)
    scene.position = random.integer(-road_half - walk // 2, road_half + walk // 2)
    sky(scene)
    backdrop(scene, mountains=20, trees=45, skyline=35)
    region = scene.ground()
    outside = np.abs(region.x)
    grass(scene, region, outside >= road_half + walk)
    sidewalk(scene, region, between(outside, road_half, road_half + walk))
    road(scene, region, outside < road_half, region.x, region.y)
    region.fill(between(outside, road_half - 120, road_half + 120), (186, 184, 178), SIDEWALK)  # kerb
    if random.chance(25):
        start = random.integer(4000, 14000)
        stripes = (outside < road_half - 300) & between(region.y, start, start + 3500) & (region.x % 1000 < 500)
        region.fill(stripes, (216, 216, 210), ROAD)

    things = []
    for side in (-1, 1):
        edge = side * (road_half + walk)
        if random.chance(70):
            buildings_along(scene, edge + side * random.integer(0, 2500))
        else:
            park = [(edge + side * random.integer(1500, 16000), random.integer(7000, 60000), tree)
                    for _ in range(random.integer(3, 8))]
            draw_far_to_near(scene, park)
            if random.chance(60):
                plane, height = scene.side(edge + side * 300), random.integer(900, 1900)
                fence(random, plane, between(plane.y, 0, height) & between(plane.x, 2500, 60000), height)
        kerb = side * (road_half + 500)
        spacing, first = random.integer(9000, 20000), random.integer(4500, 12000)
        planted = random.pick((tree, streetlight, streetlight, None))
        if planted:
            things += [(kerb, first + i * spacing, planted) for i in range(random.integer(2, 5))]
        for _ in range(random.integer(0, 4)):
            x = side * random.integer(road_half + 400, road_half + walk - 300)
            things.append((x, random.integer(3000, 12000) * random.integer(1, 4), person))
        if random.chance(40):
            things.append((kerb, random.integer(5000, 22000), signboard))
        if random.chance(50):
            things.append((side * (road_half + walk - 500), random.integer(3500, 16000), clutter))
        for _ in range(random.integer(0, 4)):
            lane = side * random.pick((road_half // 2, road_half - 1100))
            things.append((lane, random.integer(5000, 14000) * random.integer(1, 5), car))
    if random.chance(30):
        things.append((random.integer(-road_half, road_half), random.integer(5000, 25000), person))
    draw_far_to_near(scene, [thing for thing in things if thing[1] < 90000])


def street_across(scene):
    """The camera looks across a street at the buildings or the park on its far side."""
    random = scene.random
    scene.camera_along = False
    kerb = random.integer(5000, 10000)  # z of the near edge of the road
    road_far = kerb + random.integer(5000, 9000)
    walk_far = road_far + random.integer(1500, 5000)
    sky(scene)
    backdrop(scene, mountains=25, trees=40, skyline=30)
    region = scene.ground()
    grass(scene, region, region.y >= walk_far)
    sidewalk(scene, region, between(region.y, road_far, walk_far) | (region.y < kerb))
    road(scene, region, between(region.y, kerb, road_far), region.y - (kerb + road_far) // 2, region.x)
    for edge in (kerb, road_far):
        region.fill(between(region.y, edge, edge + 200), (180, 178, 172), SIDEWALK)

    view = scene.width * walk_far // scene.focal  # how much of the far side is seen, in mm
    behind, things = walk_far + random.integer(0, 4000), []
    built = random.integer(20, 95)
    x = -view
    while x < view:
        if random.chance(built):
            things.append((x, behind + random.integer(0, 400), building))
        else:
            things.append((x, behind + random.integer(0, 6000), tree))
        x += random.integer(4000, 12000)
    if random.chance(45):
        things.append((random.integer(-view // 3, view // 3), walk_far + 200, fence_across))

    def across():
        return random.integer(-view // 2, view // 2)

    things += [(across(), random.integer(kerb + 1200, road_far - 1000), car) for _ in range(random.integer(0, 4))]
    things += [(across(), random.integer(road_far + 300, walk_far), person) for _ in range(random.integer(0, 4))]
    things += [(across() // 3, random.integer(3000, kerb), person) for _ in range(random.integer(0, 2))]
    things += [(across(), road_far + 500, streetlight) for _ in range(random.integer(0, 3))]
    things += [(across(), road_far + 600, tree) for _ in range(random.integer(0, 1))]
    things += [(across(), road_far + 700, signboard) for _ in range(random.integer(0, 2))]
    things += [(across(), road_far + 800, clutter) for _ in range(random.integer(0, 2))]
    draw_far_to_near(scene, things)


def landscape(scene):
    """Mountains, meadows, lakes, a winding road, a few houses and people."""
    random = scene.random
    scene.eye = random.integer(1500, 7000)
    sky(scene)
    backdrop(scene, mountains=78, trees=60, skyline=4)
    region = scene.ground()
    grass(scene, region, np.ones(region.shape, bool))
    things = []
    lake = random.chance(62)
    if lake:
        near = random.integer(3000, 20000)
        wobble = noise(random, *region.shape, max(4, scene.width // 5), 3)
        far = near * random.integer(2, 30)
        shore = scene.horizon + scene.focal * scene.eye // far
        z = region.y + (region.y * wobble >> 8)
        water(scene, region, between(z, near, far), min(shore, scene.height - 1))
    if random.chance(40):
        half, bend, start = random.integer(1500, 3500), random.integer(-300, 300), random.integer(-6000, 6000)
        distance = region.y // 100
        across = region.x - start - bend * distance * distance // 20000 - region.y * random.integer(-30, 30) // 100
        road(scene, region, np.abs(across) < half, across, region.y)
        if random.chance(60):
            z = random.integer(7000, 30000)
            things.append((start + bend * (z // 100) ** 2 // 20000, z, car))

    def scatter(draw, count, nearest, farthest):
        for _ in range(count):
            z = random.integer(nearest, farthest)
            reach = scene.width * z // scene.focal // 2
            x = random.integer(-reach, reach)
            if scene.label_of_ground(x, z) != WATER:
                things.append((x, z, draw))

    scatter(tree, random.integer(0, 8), 7000, 70000)
    scatter(house, random.pick((0, 0, 0, 1, 2)), 18000, 60000)
    scatter(person, random.pick((0, 0, 1, 2, 3)), 4000, 25000)
    if not lake:
        scatter(fence_across, random.pick((0, 1)), 7000, 25000)
    scatter(signboard, random.pick((0, 0, 0, 1)), 5000, 20000)
    scatter(clutter, random.pick((0, 0, 1, 3)), 4000, 20000)
    draw_far_to_near(scene, things)


def room(scene):
    """A room: three walls, floor, ceiling, windows, paintings, people and unlabelled furniture."""
    random = scene.random
    scene.eye = random.integer(1300, 1800)
    scene.horizon = scene.height * random.integer(40, 58) // 100
    scene.clear = 10**9
    depth, ceiling = random.integer(3500, 8000), random.integer(2400, 3400)
    left, right = -random.integer(1500, 4000), random.integer(1500, 4000)
    floor_region = scene.ground()
    plain = random.integer(8, 40)

    def wall(region, inside, colour, light):
        light = light + (noise(random, *region.shape, 32) * plain >> 7)
        if stripes:
            light = light - np.where(region.x % stripes < stripes // 2, 18, 0)
        region.fill(inside, colour, WALL, light)
        region.fill(inside & (region.y < 140), colour, WALL, 190)  # skirting board

    # Everything is painted from back to front: ceiling and floor up to the camera, then the walls over them.
    tone = random.integer(150, 235)
    flat = scene.flat()
    shade = 256 - np.abs(flat.y - scene.horizon) * random.integer(0, 60) // scene.height
    flat.fill(np.ones(flat.shape, bool), random.colour(((tone, tone, tone - 8),), 6), CEILING, shade)
    boards, tiles = random.integer(120, 300), random.chance(40)
    light = ground_texture(scene, floor_region, 40, random.integer(20, 60))
    seams = floor_region.x % boards < boards // 8
    if tiles:
        seams = seams | (floor_region.y % boards < boards // 8)
    floor_region.fill(np.ones(floor_region.shape, bool), random.colour(CLAY + CLAY + STONE), FLOOR, light - seams * 40)

    stripes = random.integer(200, 900) if random.chance(25) else 0
    colour = random.colour(STONE + CLAY[3:] + ((190, 200, 205), (205, 195, 175), (225, 222, 214), (150, 175, 160)))
    back = scene.upright(0, depth, 10**5, ceiling)
    walls = [(back, between(back.x, left, right) & between(back.y, 0, ceiling), left, right, 256)]
    for x, lightness in ((left, random.integer(190, 240)), (right, random.integer(215, 280))):
        plane = scene.side(x)
        walls.append((plane, (plane.x < depth) & between(plane.y, 0, ceiling), 1500, depth, lightness))
    for region, inside, start, end, lightness in walls:
        wall(region, inside, colour, lightness)
        # Windows and paintings hang side by side, one to a slot.
        slot = random.integer(1300, 2600)
        for place in range(start + 200, end - slot, slot):
            draw = random.pick((window, painting, painting, window, None))
            if draw:
                draw(scene, region, inside, place + slot // 8, place + slot * random.integer(60, 90) // 100, lightness)
    things = [(random.integer(left, right), random.integer(1900, depth), person) for _ in range(random.integer(0, 2))]
    things += [(random.integer(left, right), random.integer(1800, depth), furniture)
               for _ in range(random.integer(1, 3))]
    draw_far_to_near(scene, things)


# The last digit of a scene's seed picks its kind, so that any run of scenes has the same mix.
KINDS = (street_along, landscape, room, street_across, street_along,
         landscape, street_along, room, landscape, street_across)


def draw_scene(seed, size=DEFAULT_SIZE):
    """Draw one scene.

    Args:
        seed (int): 0 or greater; the same seed and size give the same pixels on every machine.
        size (int | tuple[int, int]): Height and width, or the side of a square, in pixels; at least 32.

    Returns:
        tuple[np.ndarray, np.ndarray]: The image, uint8 (H, W, 3), RGB, and the annotation, uint8 (H, W), with the
        numbers of :data:`CLASSES_USED` and 0 where unlabelled.

    Raises:
        UserError: A side is shorter than 32 pixels, or the seed negative.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < SMALLEST_SIDE:
        raise UserError(f'size {height}x{width} is too small for a scene: give at least {SMALLEST_SIDE} pixels a side')
    if seed < 0:
        raise UserError(f'seed {seed} is negative: give 0 or greater')
    scene = Scene(Random(seed), height, width)
    KINDS[seed % len(KINDS)](scene)
    return photograph(scene), scene.labels
