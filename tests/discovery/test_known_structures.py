"""Known structures beside averages: which one it is, in which pose, and how much they differ."""

import numpy as np
import pytest

from aitom_ssl import geometry
from aitom_ssl.discovery.averaging import Average
from aitom_ssl.discovery.known_structures import best_matches, known_structures
from aitom_ssl.discovery.resolution import soft_sphere
from aitom_ssl.simulation import Scene, SimulationSpec, Simulator

SIZE, VOXEL = 20, 18.0
NAMES = ["proteasome_26s", "ribosome_70s"]


@pytest.fixture(scope="module")
def known():
    return known_structures([*NAMES, "nothing_known"], SIZE, VOXEL, {"defocus_um": 5.0, "size": 1})[0]


def test_names_that_are_no_structures_are_left_out(known):
    assert [one.name for one in known] == NAMES
    assert all(one.template.shape == (SIZE,) * 3 and 0 < one.voxels < SIZE**3 for one in known)


def test_a_structure_larger_than_the_box_is_noted():
    found, notes = known_structures(["ribosome_70s"], 8, VOXEL)
    assert not found and notes == ["ribosome_70s is larger than the box: averages are not compared with it."]


def test_the_optics_of_the_simulation_are_those_of_the_templates():
    one, other = (known_structures(["ribosome_70s"], SIZE, VOXEL, {"defocus_um": d})[0][0] for d in (5.0, 12.0))
    assert np.abs(one.template - other.template).max() > 0.05 * np.abs(one.template).max()


def test_the_template_is_what_the_simulator_shows(known):
    spec = SimulationSpec(classes=tuple(NAMES), size=SIZE, voxel_size=VOXEL, snr=1, tilt_max=90)
    shown = Simulator(spec).signal(Scene(0, 0, 1, np.array([1.0, 0, 0, 0]), np.zeros(3), spec.defocus_um, ()))
    assert np.corrcoef(shown.ravel(), known[1].template.ravel())[0, 1] > 0.95


def test_an_average_in_another_pose_is_recognised_and_turned_back(known):
    spec = SimulationSpec(classes=tuple(NAMES), size=SIZE, voxel_size=VOXEL, snr=1, tilt_max=90)
    turn = geometry.euler_zyz_to_quaternion((40.0, 70.0, -20.0))
    shown = Simulator(spec).signal(Scene(0, 0, 1, turn, np.array([1.0, -0.5, 0.7]), spec.defocus_um, ()))
    average = Average(shown, np.ones((SIZE,) * 3, np.float32))
    matches = best_matches(average, known, VOXEL, soft_sphere(SIZE, SIZE / 2 - 2))
    assert [match.name for match in matches] == ["ribosome_70s", "proteasome_26s"]
    best, other = matches
    assert best.score > 0.9 > other.score and best.discrepancy < 60 < other.discrepancy
    assert np.corrcoef(best.posed.ravel(), known[1].template.ravel())[0, 1] > 0.85
    assert best_matches(average, [], VOXEL, soft_sphere(SIZE, 5)) == []
