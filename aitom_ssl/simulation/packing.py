"""Neighbours packed against a target: bounding spheres that touch, and rotated copies to paste there."""

from __future__ import annotations

import numpy as np

from aitom_ssl import geometry


def contact_distance(
    origin: np.ndarray, direction: np.ndarray, centres: np.ndarray, distances: np.ndarray
) -> float:
    """How far to go from `origin` along the unit `direction` to be at least `distances[i]` from every `centres[i]`.

    (3,), (3,), (m, 3), (m,), one unit throughout. Closed form: the largest root of |o + s d - c_i|^2 = r_i^2 over
    the spheres that the ray meets, 0 if it meets none. Replaces AITom's 5,000-step descent, whose spheres often end
    apart (measured gaps of up to 26 nm).
    """
    offset = np.asarray(centres) - origin
    along = offset @ direction
    discriminant = np.square(along) - np.square(offset).sum(-1) + np.square(distances)
    roots = along + np.sqrt(np.maximum(discriminant, 0))
    return float(max(0.0, np.max(np.where(discriminant >= 0, roots, 0.0))))


def pack(target: np.ndarray, radii: np.ndarray, directions: np.ndarray, gap: float = 0.0) -> np.ndarray:
    """Centres (m, 3) on whole voxels of m neighbours around a target at `target` (3,), in voxels (x, y, z).

    `radii` (m + 1,) in voxels, the target's first; `directions` (m, 3) of unit length; `gap` in voxels. One after the
    other they come to contact along their direction, then outward in half voxels until the rounded centre keeps
    every pair at least `gap` apart.
    """
    centres = [np.asarray(target, dtype=np.float64)]
    for j, direction in enumerate(directions, start=1):
        placed = np.array(centres)
        distances = np.asarray(radii[:j]) + radii[j] + gap
        along = contact_distance(centres[0], direction, placed, distances)
        while True:
            centre = np.round(centres[0] + along * direction)
            if (np.square(placed - centre).sum(-1) >= np.square(distances)).all():
                break
            along += 0.5
        centres.append(centre)
    return np.array(centres[1:]).reshape(-1, 3)


def cube_views() -> list[tuple[tuple[int, int, int], tuple[slice, slice, slice]]]:
    """For each of the 24 cube rotations the (axes, flips) that turn an odd (z, y, x) cube about its centre voxel."""
    views = []
    for matrix in geometry.reverse_axes(geometry.cube_rotations()):
        axes = np.abs(matrix).argmax(axis=1)
        signs = matrix[np.arange(3), axes]
        views.append((tuple(int(a) for a in axes), tuple(slice(None, None, int(s)) for s in signs)))
    return views


CUBE_VIEWS = cube_views()


def turn(cube: np.ndarray, view: int) -> np.ndarray:
    """The odd cube turned by cube rotation `view` (0-23): a view, no copy."""
    axes, flips = CUBE_VIEWS[view]
    return cube.transpose(axes)[flips]


def paste(box: np.ndarray, cube: np.ndarray, centre: np.ndarray) -> None:
    """Add a cube to `box` in place, its centre voxel at n//2 + `centre` (x, y, z), clipped at the borders."""
    half = cube.shape[0] // 2
    into, out_of = [], []
    for side, position in zip(box.shape, np.asarray(centre, dtype=int)[::-1], strict=True):
        start = side // 2 + int(position) - half
        low, high = max(start, 0), min(start + cube.shape[0], side)
        if low >= high:
            return
        into.append(slice(low, high))
        out_of.append(slice(low - start, high - start))
    box[tuple(into)] += cube[tuple(out_of)]
