"""MRC maps: voxel size, axis order, resampling, damage."""

import gzip
import itertools

import mrcfile
import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.structures import MapStructure
from aitom_ssl.structures.builtin import get
from aitom_ssl.structures.density import gaussian_sigma
from aitom_ssl.structures.maps import read_map, resampling_matrix


def write(path, volume, voxel_size=10.0, order=(1, 2, 3)):
    """`volume` is (z, y, x); stored with columns, rows, sections along the axes that `order` names (1 = x)."""
    stored = np.transpose(volume, [3 - axis for axis in order[::-1]])
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(np.ascontiguousarray(stored, dtype=np.float32))
        file.header.mapc, file.header.mapr, file.header.maps = order
        nz, ny, nx = volume.shape
        sizes = np.broadcast_to(voxel_size, 3)
        file.header.mx, file.header.my, file.header.mz = nx, ny, nz
        file.header.cella.x, file.header.cella.y, file.header.cella.z = sizes * [nx, ny, nz]
    return path


@pytest.fixture
def lopsided():
    """(z, y, x) with three different sides and a blob of its own place on each axis."""
    volume = np.zeros((14, 16, 18), np.float32)
    volume[4:7, 8:10, 11:16] = 1.0
    volume[5, 9, 12] = 3.0
    return volume


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
def test_axis_order_of_the_header_is_honoured(tmp_path, lopsided, order):
    data, sizes = read_map(write(tmp_path / "a.mrc", lopsided, (2.0, 3.0, 4.0), order))
    np.testing.assert_array_equal(data, lopsided)
    assert sizes == pytest.approx((4.0, 3.0, 2.0))


def test_unset_axis_order_means_the_usual_one(tmp_path, lopsided):
    path = write(tmp_path / "a.mrc", lopsided)
    with mrcfile.open(path, "r+", permissive=True) as file:
        file.header.mapc = file.header.mapr = file.header.maps = 0
    np.testing.assert_array_equal(read_map(path)[0], lopsided)


def test_impossible_axis_order_is_refused(tmp_path, lopsided):
    path = write(tmp_path / "a.mrc", lopsided)
    with mrcfile.open(path, "r+", permissive=True) as file:
        file.header.mapc = 2
    with pytest.raises(InputError, match=r"axis order mapc, mapr, maps = \[2, 2, 3\]"):
        read_map(path)


def test_compressed_maps_are_the_same(tmp_path, lopsided):
    path = write(tmp_path / "a.mrc", lopsided)
    packed = tmp_path / "a.mrc.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(MapStructure(packed).density(10.0).volume, MapStructure(path).density(10.0).volume)


def test_the_file_is_not_touched(tmp_path, lopsided):
    path = write(tmp_path / "a.mrc", lopsided)
    before = path.read_bytes()
    path.chmod(0o444)
    MapStructure(path).density(10.0)
    assert path.read_bytes() == before


def test_resampling_matrix_is_exact_for_band_limited_signals():
    positions = np.arange(60) * 3.0
    signal = np.exp(-((positions - 91.3) ** 2) / (2 * 15.0**2))
    points = np.linspace(20.0, 160.0, 23)
    matrix = resampling_matrix(60, 3.0, points, 3.0, 0.0)
    np.testing.assert_allclose(matrix @ signal, np.exp(-((points - 91.3) ** 2) / (2 * 15.0**2)), atol=1e-6)
    blurred = resampling_matrix(60, 3.0, points, 3.0, 8.0) @ signal
    width = 15.0**2 + 8.0**2
    np.testing.assert_allclose(blurred, 15 / width**0.5 * np.exp(-((points - 91.3) ** 2) / (2 * width)), atol=1e-6)


@pytest.mark.parametrize("voxel_size", [7.0, 10.0, 12.5])
def test_map_of_a_known_model_comes_back_at_another_voxel_size(tmp_path, voxel_size):
    """A finely sampled map, off centre in its box, against the analytic model at the new sampling."""
    model = get("beta_galactosidase")
    fine = model.density(4.0, 25.0)
    path = write(tmp_path / "a.mrc", np.pad(fine.volume, ((3, 9), (8, 0), (1, 5))), 4.0)
    resampled = MapStructure(path).density(voxel_size, 40.0)
    own = gaussian_sigma(25.0) ** 2 - gaussian_sigma(8.0) ** 2  # the map was blurred once, and counts as 8 A sharp
    expected = model.density(voxel_size, np.sqrt(40.0**2 + 12.0 * own)).volume
    n = min(len(expected), len(resampled.volume))
    a, b = (
        v[(len(v) - n) // 2 :, (len(v) - n) // 2 :, (len(v) - n) // 2 :][:n, :n, :n]
        for v in (expected, resampled.volume)
    )
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.995
    assert resampled.volume.shape[0] % 2 == 0
    assert resampled.volume.shape[0] >= 2 * resampled.radius / voxel_size + 4


def test_a_map_is_not_blurred_below_its_own_resolution(tmp_path, lopsided):
    path = write(tmp_path / "a.mrc", lopsided, 10.0)
    sharp = MapStructure(path).density(10.0, 5.0).volume
    np.testing.assert_array_equal(sharp, MapStructure(path).density(10.0, 20.0).volume)
    assert not np.allclose(sharp, MapStructure(path).density(10.0, 40.0).volume, atol=0.01)


def test_centre_is_the_middle_of_the_bounding_box(tmp_path):
    volume = np.zeros((20, 20, 20), np.float32)
    volume[2:7, 9:14, 12:17] = 1.0
    density = MapStructure(write(tmp_path / "a.mrc", volume)).density(10.0)
    centre = density.volume.shape[0] // 2
    mask = np.argwhere(density.volume > 0.5) - centre
    np.testing.assert_array_equal(mask.min(axis=0), [-2, -2, -2])
    np.testing.assert_array_equal(mask.max(axis=0), [2, 2, 2])


def test_threshold_removes_the_background(tmp_path):
    rng = np.random.default_rng(0)
    volume = rng.uniform(-0.3, 0.3, (24, 24, 24)).astype(np.float32)
    volume[10:14, 10:14, 10:14] = 1.0
    path = write(tmp_path / "a.mrc", volume)
    clean = MapStructure(path, threshold=0.5).density(10.0)
    assert clean.volume.shape[0] < MapStructure(path).density(10.0).volume.shape[0]
    assert clean.threshold == 0.15 and clean.mass == 0.0
    assert MapStructure(path, threshold=0.5).fingerprint() != MapStructure(path).fingerprint()


@pytest.mark.parametrize("voxel_size", [0.0, float("nan"), -1.0, (10.0, 0.0, 10.0)])
def test_senseless_voxel_size_is_refused_and_can_be_given(tmp_path, lopsided, voxel_size):
    path = write(tmp_path / "a.mrc", lopsided, voxel_size)
    with pytest.raises(InputError, match=r"a\.mrc states a voxel size of"):
        MapStructure(path).density(10.0)
    good = write(tmp_path / "b.mrc", lopsided, 10.0)
    np.testing.assert_array_equal(
        MapStructure(path, voxel_size=10.0).density(10.0).volume, MapStructure(good).density(10.0).volume
    )


def test_anisotropic_voxels_become_cubes(tmp_path):
    volume = np.zeros((20, 20, 40), np.float32)
    volume[7:13, 7:13, 14:26] = 1.0  # 60 x 60 x 60 A
    density = MapStructure(write(tmp_path / "a.mrc", volume, (5.0, 10.0, 10.0))).density(10.0)
    extent = np.ptp(np.argwhere(density.volume > 0.4), axis=0)
    assert extent.max() - extent.min() <= 1


def damaged(kind, path, volume):
    write(path, volume)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    elif kind == "text":
        path.write_text("this is not a map " * 100)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "nan":
        volume = volume.copy()
        volume[3, 3, 3] = np.nan
        write(path, volume)
    elif kind == "flat":
        write(path, np.full_like(volume, 2.0))
    elif kind == "negative":
        write(path, -volume)
    elif kind == "image":
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(volume[0])
    return path


@pytest.mark.filterwarnings("ignore:Data array contains NaN")  # from writing one
@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "nan", "flat", "negative", "image"])
def test_damaged_maps_are_refused_in_one_line(tmp_path, lopsided, kind):
    path = damaged(kind, tmp_path / "a.mrc", lopsided)
    with pytest.raises(InputError) as caught:
        MapStructure(path).density(10.0)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_options_are_validated(tmp_path, lopsided):
    with pytest.raises(InputError, match="no map file"):
        MapStructure(tmp_path / "missing.mrc")
    path = write(tmp_path / "a.mrc", lopsided)
    with pytest.raises(InputError, match="threshold must be a finite"):
        MapStructure(path, threshold=float("nan"))
    with pytest.raises(InputError, match="voxel_size must be a positive"):
        MapStructure(path, voxel_size=0.0).density(10.0)


def test_every_real_map_loads(shared_folder):
    files = sorted((shared_folder / "structures" / "density_10A").iterdir())
    assert len(files) == 19
    for file in files:
        density = MapStructure(file).density(10.0)
        n = density.volume.shape[0]
        assert density.volume.max() == 1.0 and n % 2 == 0, file.name
        assert 30 < density.radius < 200 and n >= 2 * density.radius / 10 + 4, file.name
        # Fourier cropping rings, a little
        assert density.volume.min() > -0.05, file.name
