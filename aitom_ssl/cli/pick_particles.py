"""Find particles in a tomogram without a template (difference of Gaussians, as in Xu 2017).

Writes --output=NAME.star (RELION), and beside it NAME.csv (x,y,z in voxels from 0, score) and NAME.png to judge the
picks by. --sigma is about a quarter of a particle's diameter: too small picks noise, too large merges neighbours.
--template aligns a structure (at 40 A, with the contrast transfer of 300 kV, 5 um underfocus, tilts of +-60 degrees) to
every pick, and both files get its score as one more column; by it, --template_score leaves only what looks like it.

Examples:
  aitom-ssl pick_particles --tomogram=tomogram.mrc --invert_contrast --box_size=32 --output=picks.star
  aitom-ssl pick_particles --tomogram=tomogram.mrc --invert_contrast --box_size=40 --output=picks.star \\
      --template=pdb:3DY4 --template_score=0.4
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aitom_ssl.cli.common import flag
from aitom_ssl.errors import InputError
from aitom_ssl.files import atomic_write, refuse_unwritable

if TYPE_CHECKING:
    import numpy as np

    from aitom_ssl.discovery.picking import Picks
    from aitom_ssl.structures import Structure


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
    template: str | None = flag(None, "Structure to score the picks by: a built-in name, pdb:ID, or a PDB or MRC file.")
    template_score: float | None = flag(None, "Keep the picks that --template scores at least so (-1 to 1).")
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
    if options.template is None and options.template_score is not None:
        raise InputError("--template_score is a score of --template: give the structure, or leave it out.")
    if options.template_score is not None and not -1 <= options.template_score <= 1:
        raise InputError(f"--template_score={options.template_score:g}: expected -1 to 1.")

    from aitom_ssl.data.importers.coordinates import write_csv
    from aitom_ssl.data.importers.star import tomogram_stem, write_star
    from aitom_ssl.discovery.picking import pick
    from aitom_ssl.discovery.picking_figure import picks_figure
    from aitom_ssl.mrc import choose_voxel_size, read_mrc
    from aitom_ssl.structures import resolve

    structure = None if options.template is None else resolve(options.template)
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
    picked, matched = len(picks.positions), None
    if structure is not None:
        picks, matched = _match(picks, tomogram, voxel_size, structure, options)
    name = options.tomogram_name or tomogram_stem(options.tomogram)
    in_star, in_csv = ({} if matched is None else {name: matched} for name in ("aitomTemplateScore", "template_score"))
    write_star(star, picks.positions, picks.scores, voxel_size, name, in_star)
    write_csv(star.with_suffix(".csv"), picks.positions, picks.scores, in_csv)
    with atomic_write(star.with_suffix(".png")) as temporary:
        picks_figure(tomogram, picks, voxel_size, options.box_size).savefig(temporary, dpi=80)
    print(
        f"{star}: {len(picks.positions)} particles of {picks.candidates} local maxima, sigma {picks.sigma:g} voxels, "
        f"at least {picks.min_distance:g} voxels apart; look at {star.with_suffix('.png')}"
    )
    if matched is not None:
        print(f"{structure.name} fits them with scores from {matched.min():.3f} to {matched.max():.3f}.")
    share = picks.opposite / picked
    print(f"The opposite contrast gives {picks.opposite} at the same threshold: {min(share, 1):.0%} may be noise.")
    if share > 1:
        print(f"More than the picks: {'leave out' if options.invert_contrast else 'give'} --invert_contrast?")
    elif share > 0.25:
        print("Give --top=N to keep fewer, or another --sigma.")


def _match(
    picks: Picks, tomogram: np.ndarray, voxel_size: float, structure: Structure, options: Options
) -> tuple[Picks, np.ndarray]:
    """The picks that fit the structure at least as well as asked for, in their order, and how well each does."""
    from aitom_ssl.discovery.template_matching import RESOLUTION, ctf_template, template_scores
    from aitom_ssl.environment import usable_cores

    density = structure.density(voxel_size, RESOLUTION)
    scores = template_scores(
        tomogram,
        picks.positions,
        ctf_template(density, options.box_size),
        voxel_size,
        invert_contrast=options.invert_contrast,
        max_shift=min(picks.min_distance / 2, options.box_size / 4),
        radius=density.radius / voxel_size,
        workers=usable_cores(),
    ).score
    least = -1.0 if options.template_score is None else options.template_score
    kept = scores >= least
    if not kept.any():
        raise InputError(
            f"No pick scores --template_score={least:g} with --template={options.template}: the best of {len(scores)} "
            f"scores {scores.max():.3f}."
        )
    return replace(picks, positions=picks.positions[kept], scores=picks.scores[kept]), scores[kept]
