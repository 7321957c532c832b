"""Find particles in a tomogram without a template (difference of Gaussians, as in Xu 2017).

Writes --output=NAME.star (RELION), and beside it NAME.csv (x,y,z in voxels from 0, score) and NAME.png to judge the
picks by. --sigma is about a quarter of a particle's diameter: too small picks noise, too large merges neighbours.

Example:
  aitom-ssl pick_particles --tomogram=tomogram.mrc --invert_contrast --box_size=32 --output=picks.star
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aitom_ssl.cli.common import flag
from aitom_ssl.errors import InputError
from aitom_ssl.files import atomic_write, refuse_unwritable


@dataclass
class Options:
    tomogram: str | None = flag(None, "Tomogram (MRC, gzipped too).")
    output: str | None = flag(None, "STAR file to write, with a CSV and a PNG of the same name beside it.")
    invert_contrast: bool = flag(False, "Particles are dark in the tomogram.")
    sigma: float = flag(70.0, "Deviation of the narrower Gaussian in A; at least two voxels are used.")
    ratio: float = flag(1.1, "Deviation of the wider Gaussian over that of the narrower.")
    box_size: int = flag(32, "Box in voxels to be cut later: nothing is picked where it leaves the tomogram.")
    min_distance: float | None = flag(None, "Least distance of two picks in A; by default twice sigma.")
    top: int | None = flag(None, "Keep the best so many, instead of all above the threshold m + 3 (M - m) / 20.")
    voxel_size: float | None = flag(None, "Voxel size in A, in place of the one in the MRC header.")
    tomogram_name: str | None = flag(None, "Name in the STAR file (rlnTomoName); by default the tomogram file's.")


def run(options: Options) -> None:
    """Pick, write, and say how many."""
    if options.tomogram is None or options.output is None:
        raise InputError("--tomogram and --output are needed: the MRC file to pick in, and the STAR file to write.")
    star = Path(options.output)
    if star.suffix != ".star":
        raise InputError(f"--output={options.output}: expected a name that ends in .star.")
    if star.is_dir():
        raise InputError(f"--output={options.output} is a folder: give the name of a file.")
    refuse_unwritable(star.parent)
    if options.box_size < 2:
        raise InputError(f"--box_size={options.box_size}: expected at least 2 voxels.")

    from aitom_ssl.data.importers.coordinates import write_csv
    from aitom_ssl.data.importers.star import tomogram_stem, write_star
    from aitom_ssl.discovery.picking import pick
    from aitom_ssl.discovery.picking_figure import picks_figure
    from aitom_ssl.mrc import choose_voxel_size, read_mrc

    tomogram, header = read_mrc(options.tomogram)
    voxel_size = choose_voxel_size(header, options.voxel_size, options.tomogram)
    picks = pick(
        tomogram,
        voxel_size,
        sigma=options.sigma,
        ratio=options.ratio,
        invert_contrast=options.invert_contrast,
        box_size=options.box_size,
        min_distance=options.min_distance,
        top=options.top,
    )
    name = options.tomogram_name or tomogram_stem(options.tomogram)
    write_star(star, picks.positions, picks.scores, voxel_size, name)
    write_csv(star.with_suffix(".csv"), picks.positions, picks.scores)
    with atomic_write(star.with_suffix(".png")) as temporary:
        picks_figure(tomogram, picks, voxel_size, options.box_size).savefig(temporary, dpi=80)
    print(
        f"{star}: {len(picks.positions)} particles of {picks.candidates} local maxima, sigma {picks.sigma:g} voxels, "
        f"at least {picks.min_distance:g} voxels apart; look at {star.with_suffix('.png')}"
    )
    share = picks.opposite / len(picks.positions)
    print(f"The opposite contrast gives {picks.opposite} at the same threshold: {min(share, 1):.0%} may be noise.")
    if share > 1:
        print(f"More than the picks: {'leave out' if options.invert_contrast else 'give'} --invert_contrast?")
    elif share > 0.25:
        print("Give --top=N to keep fewer, or another --sigma.")
