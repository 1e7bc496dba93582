"""A small image folder to try the pipeline on: five drawn shapes, as PNG files in <split>/<class>/.

    python docs/examples/make_shapes.py FOLDER [--train 1500] [--test 300] [--side 24] [--seed 0]

Each image shows one shape, its place, size, turn and colours drawn at random, under noise. The same arguments give the
same pixels.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

# The corners of each shape on a circle: as many, and the radius of every other one. A disc has none.
SHAPES = {"cross": (8, 0.35), "disc": (0, 1.0), "square": (4, 1.0), "star": (10, 0.45), "triangle": (3, 1.0)}
SCALE = 4  # drawn so many times larger, then reduced: smooth edges
NOISE = 25  # standard deviation, of 255


def draw(shape: str, side: int, rng: np.random.Generator) -> Image.Image:
    """One image of a shape, `side` pixels wide and high, RGB."""
    size = side * SCALE
    ground, colour = (tuple(int(c) for c in rng.integers(0, 256, 3)) for _ in range(2))
    radius = size * rng.uniform(0.2, 0.4)
    x, y = rng.uniform(radius, size - radius, 2)
    turn = rng.uniform(0, 2 * math.pi)
    image = Image.new("RGB", (size, size), ground)
    corners, inner = SHAPES[shape]
    if corners:
        radii = [radius * (inner if i % 2 else 1) for i in range(corners)]
        angles = [turn + 2 * math.pi * i / corners for i in range(corners)]
        points = [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
        ImageDraw.Draw(image).polygon(points, fill=colour)
    else:
        ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BOX)) + rng.normal(0, NOISE, (side, side, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(folder: Path, train: int, test: int, side: int, seed: int) -> None:
    """Writes both splits; every class has its share of the images."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            shape = list(SHAPES)[number % len(SHAPES)]
            path = folder / split / shape / f"{number:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(shape, side, rng).save(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=1500, help="training images")
    parser.add_argument("--test", type=int, default=300, help="test images")
    parser.add_argument("--side", type=int, default=24, help="pixels")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write(given.folder, given.train, given.test, given.side, given.seed)
