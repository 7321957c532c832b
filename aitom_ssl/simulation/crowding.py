"""Particles packed into a volume without overlap: where each is, and the density and labels that they make."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from aitom_ssl import geometry
from aitom_ssl.errors import InputError
from aitom_ssl.simulation import packing, volume
from aitom_ssl.simulation.threads import in_threads

# Orientations tried for a particle, places tried for each of them, and voxels of a particle that are looked at first.
POSES, PLACES, PROBES = 100, 1000, 32


@dataclass(frozen=True)
class Particles:
    """n particles in a volume, as placed: the instance label of particle i is i + 1.

    labels (n,) int; quaternions (n, 4); positions (n, 3) of their centres, x, y, z in voxels from 0; voxels (n,) int,
    how many each fills.
    """

    labels: np.ndarray
    quaternions: np.ndarray
    positions: np.ndarray
    voxels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class _Pose:
    quaternion: np.ndarray
    fraction: np.ndarray  # (3,) x, y, z: how far the centre is from the centre of its voxel
    density: np.ndarray  # (box, box, box) float32
    mask: np.ndarray  # (box, box, box) bool
    solid: np.ndarray  # the same with its cavities


def turned(template: volume.Template, quaternion: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """(box, box, box) float32 template in its pose, `fraction` of a voxel (x, y, z) from the centre voxel."""
    whole = _whole(template.box)
    spectrum = template.transform.sample(whole.k, geometry.quaternion_to_matrix(quaternion))
    return volume.to_volume(spectrum * volume.shift_phase(whole, fraction), whole)


@functools.lru_cache(maxsize=64)
def _whole(box: int) -> volume.Support:
    return volume.support(box)


def crowd(
    templates: Sequence[volume.Template],
    labels: np.ndarray,
    density: np.ndarray,
    instances: np.ndarray,
    stream: Callable[[int, int], np.random.Generator],
    gap: float = 0.0,
    workers: int = 1,
    progress: Callable[[int], object] = int,
) -> Particles:
    """Place particles of the given `labels` (n,), the class of each, at random and add them to a volume in place.

    density (z, y, x) float32 and instances (z, y, x) uint16 are zeros to begin with. stream(particle, attempt) gives
    the random numbers of one orientation of one particle. gap: voxels left free between particles.
    A particle is whole inside the volume, at a uniformly drawn place and orientation among those where none of its
    voxels (density above its threshold) is another's, or in another's closed cavity. The largest go first, whatever
    their number: after the small ones they would not fit. `progress(1)` is called after each.
    Raises InputError when a particle finds no place in POSES x PLACES tries.
    """
    count = len(labels)
    _refuse_too_large(templates, density.shape)
    blocked = np.zeros(density.shape, dtype=bool)
    ball, middle = _ball(gap), np.array([geometry.centre(side) for side in density.shape])
    quaternions, positions, voxels = np.empty((count, 4)), np.empty((count, 3)), np.zeros(count, dtype=int)
    sizes = np.array([template.mask_voxels for template in templates])
    order = np.argsort(-sizes[labels], kind="stable")

    def pose(particle: int, attempt: int = 0) -> tuple[_Pose, np.random.Generator]:
        rng, template = stream(particle, attempt), templates[labels[particle]]
        quaternion, fraction = geometry.random_quaternions(rng, 1)[0], rng.uniform(-0.5, 0.5, 3)
        image = turned(template, quaternion, fraction)
        mask = image > template.threshold
        return _Pose(quaternion, fraction, image, mask, _filled(mask)), rng

    for placed, (particle, first) in enumerate(zip(order, in_threads(pose, order, workers), strict=True)):
        for attempt in range(POSES):
            chosen, rng = first if attempt == 0 else pose(particle, attempt)
            centre = _free_place(blocked, chosen.mask, rng)
            if centre is not None:
                break
        else:
            name = templates[labels[particle]].name
            filled = 100 * voxels.sum() / blocked.size
            raise InputError(
                f"Only {placed:,} of {count:,} particles found a place ({filled:.1f}% of the volume is theirs), and "
                f"{name} fitted nowhere any more: ask for a lower occupancy or number, or for less of a gap."
            )
        offset = (centre - middle)[::-1]
        packing.paste(density, chosen.density, offset)
        packing.paste(blocked, chosen.solid if ball is None else _dilated(chosen.solid, ball), offset)
        # No voxel is another's, so that adding is setting.
        packing.paste(instances, chosen.mask * instances.dtype.type(particle + 1), offset)
        quaternions[particle], voxels[particle] = chosen.quaternion, chosen.mask.sum()
        positions[particle] = centre[::-1] + chosen.fraction
        progress(1)
    return Particles(np.asarray(labels), quaternions, positions, voxels)


def _refuse_too_large(templates: Sequence[volume.Template], shape: tuple[int, ...]) -> None:
    for template in templates:
        if 2 * template.radius + 1 > min(shape):
            sides = "x".join(map(str, shape[::-1]))
            raise InputError(
                f"{template.name} is {2 * template.radius:.0f} voxels across and the volume {sides} (x, y, z): make it "
                "larger, or leave the structure out."
            )


def _free_place(blocked: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """A random centre voxel (z, y, x) where no voxel of `mask` is blocked or outside; None if no try was one."""
    offsets = np.argwhere(mask) - geometry.centre(mask.shape[0])
    low, high = -offsets.min(axis=0), np.array(blocked.shape) - offsets.max(axis=0)
    if not len(offsets) or (low >= high).any():
        return None
    centres = rng.integers(low, high, size=(PLACES, 3))
    strides = np.array([blocked.shape[1] * blocked.shape[2], blocked.shape[2], 1])
    flat, reach = blocked.reshape(-1), offsets @ strides
    # Most places are taken; a few voxels, spread over the particle, tell so.
    probes = reach[:: max(len(reach) // PROBES, 1)]
    starts = centres @ strides
    for place in np.flatnonzero(~flat[starts[:, None] + probes].any(axis=1)):
        if not flat[starts[place] + reach].any():
            return centres[place]
    return None


def _filled(mask: np.ndarray) -> np.ndarray:
    """A cube's mask, which leaves its corners free, with what no way from outside leads to."""
    regions, count = ndimage.label(~mask)
    return mask if count == 1 else regions != regions[0, 0, 0]


def _ball(radius: float) -> np.ndarray | None:
    """Offsets within `radius` voxels as a structuring element; None where there are none but the centre."""
    reach = int(radius)
    if reach < 1:
        return None
    z, y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1, -reach : reach + 1]
    return z * z + y * y + x * x <= radius * radius


def _dilated(mask: np.ndarray, ball: np.ndarray) -> np.ndarray:
    """The voxels within the ball of a cube's mask, in a cube that is so much larger, with the same centre voxel."""
    reach = ball.shape[0] // 2
    return ndimage.binary_dilation(np.pad(mask, reach), ball)
