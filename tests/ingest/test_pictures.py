import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingest import pictures
from ingest.pictures import PictureError, Root, decode, facts, read_file

RED, BLUE = (200, 10, 10), (10, 10, 200)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(size: tuple[int, int] = (60, 40), mode: str = "RGB") -> Image.Image:
    depth = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], depth), np.uint8)
    return (
        Image.fromarray(values.squeeze(), mode)
        if depth == 1
        else Image.frombytes(mode, size, values.tobytes())
    )


def near(pixel: Any, color: tuple[int, int, int], by: int = 12) -> bool:
    return all(abs(a - b) <= by for a, b in zip(pixel, color, strict=True))


# ---- decoding


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_common_format_becomes_rgb(kind: str) -> None:
    image = decode(encoded(Image.new("RGB", (40, 30), RED), kind))
    assert (image.mode, image.size) == ("RGB", (40, 30))
    assert near(image.getpixel((20, 15)), RED)


def test_cmyk_becomes_the_colour_it_shows() -> None:
    data = encoded(Image.new("RGB", (40, 30), RED).convert("CMYK"), "JPEG", quality=95)
    assert facts(data).mode == "CMYK"
    assert near(decode(data).getpixel((20, 15)), RED, by=25)


def test_sixteen_bits_keep_their_scale() -> None:
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        image = np.asarray(decode(encoded(Image.fromarray(ramp), kind)))
        assert image.shape == (16, 16, 3)
        assert abs(image[:, :, 0].reshape(-1).astype(int) - np.arange(256)).max() <= 1


def test_floating_point_pictures_are_scaled_from_zero_to_one() -> None:
    image = decode(encoded(Image.fromarray(np.array([[0.0, 0.5], [1.0, np.nan]], np.float32)), "TIFF"))
    assert np.asarray(image)[:, :, 0].tolist() == [[0, 128], [255, 0]]


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    clear.putpixel((5, 5), (*RED, 255))
    for data in (encoded(clear), encoded(clear.convert("LA")), encoded(clear.convert("P"), transparency=0)):
        image = decode(data)
        assert image.mode == "RGB"
    assert near(decode(encoded(clear)).getpixel((0, 0)), (255, 255, 255))
    assert near(decode(encoded(clear)).getpixel((5, 5)), RED)
    palette = Image.new("P", (10, 10), 0)
    palette.putpalette([0, 0, 0, *RED] + [0] * 762)
    palette.putpixel((5, 5), 1)
    image = decode(encoded(palette, transparency=0))
    assert near(image.getpixel((0, 0)), (255, 255, 255))
    assert near(image.getpixel((5, 5)), RED)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in (RED, BLUE)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert facts(data).frames == 2
    assert near(decode(data).getpixel((10, 10)), RED, by=25)
    thumbnail = Image.open(io.BytesIO(facts(data).thumbnail))
    assert near(thumbnail.convert("RGB").getpixel((10, 10)), RED, by=25)


def test_a_picture_is_turned_upright() -> None:
    lying = Image.new("RGB", (40, 20), RED)
    lying.paste(BLUE, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    data = encoded(lying, "JPEG", exif=exif, quality=95)
    upright = decode(data)
    assert upright.size == (20, 40)
    assert near(upright.getpixel((10, 5)), BLUE, by=25)
    assert Image.open(io.BytesIO(facts(data).thumbnail)).size == (20, 40)
    assert (facts(data).width, facts(data).height) == (40, 20)


def test_thumbnails_are_bounded_small_pictures_are_not_blown_up() -> None:
    assert Image.open(io.BytesIO(facts(encoded(noise((2000, 900)), "JPEG")).thumbnail)).size == (256, 115)
    assert Image.open(io.BytesIO(facts(encoded(noise((30, 20)))).thumbnail)).size == (30, 20)


# ---- bad bytes


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_file_is_refused(kind: str) -> None:
    data = encoded(noise(), kind)
    for cut in (len(data) // 2, len(data) * 4 // 5):
        for reader in (decode, facts):
            with pytest.raises(PictureError) as caught:
                reader(data[:cut])
            assert caught.value.code in ("image_truncated", "image_undecodable")


@pytest.mark.parametrize(
    "data", [b"", b"no picture", b"%PDF-1.7", b"<svg/>", b"\xff\xd8\xff", b"GIF89a", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(PictureError) as caught:
        decode(data)
    assert caught.value.code == "image_undecodable"


def test_formats_whose_decoders_run_other_programs_are_refused() -> None:
    postscript = encoded(noise(), "EPS")
    with pytest.raises(PictureError, match="no picture in"):
        decode(postscript)


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(8001, 8001), (12_000, 8_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(PictureError) as caught:
        decode(png_claiming(*size))
    assert caught.value.code == "image_too_large"


def test_a_file_above_the_bound_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 10)
    (tmp_path / "a").write_bytes(b"x" * 11)
    with pytest.raises(PictureError, match="11 bytes"):
        read_file(str(tmp_path / "a"))
    (tmp_path / "a").write_bytes(b"x" * 10)
    assert read_file(str(tmp_path / "a"))[0] == b"x" * 10


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_no_damage_to_the_bytes_raises_anything_but_a_picture_error(kind: str) -> None:
    rng = np.random.default_rng(1)
    whole = np.frombuffer(encoded(noise((24, 18)), kind), np.uint8)
    codes = []
    for _ in range(150):
        damaged = whole.copy()
        places = rng.integers(0, min(len(damaged), 400), rng.integers(1, 6))
        damaged[places] = rng.integers(0, 256, len(places))
        for reader in (decode, facts):
            try:
                reader(damaged.tobytes())
            except PictureError as error:
                codes.append(error.code)
    assert codes, "some damage is fatal"
    assert set(codes) <= {"image_truncated", "image_undecodable", "image_too_large"}


def test_a_bug_of_ours_is_raised_and_not_filed_as_a_bad_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(values: np.ndarray) -> np.ndarray:
        raise ValueError("a bug")

    monkeypatch.setattr(pictures, "_eight_bits", broken)
    with pytest.raises(ValueError, match="a bug"):
        decode(encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))


# ---- paths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"a")
    (folder / "sub" / "ü b.png").write_bytes(b"b")
    (tmp_path / "secret.png").write_bytes(b"s")
    (tmp_path / "images-other").mkdir()
    (tmp_path / "images-other" / "x.png").write_bytes(b"x")
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "outside").symlink_to(tmp_path / "images-other")
    (folder / "inside.png").symlink_to(folder / "a.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    return folder


@pytest.mark.parametrize(
    "reference", ["a.png", "./a.png", "sub/../a.png", "sub/ü b.png", "inside.png", "sub//ü b.png"]
)
def test_a_file_inside_the_root_is_found(root: Path, reference: str) -> None:
    path, file = Root(root).find(reference)
    assert Path(file).read_bytes() in (b"a", b"b")
    assert (root / path).read_bytes() == Path(file).read_bytes()
    assert ".." not in path


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("../secret.png", "image_path"),
        ("sub/../../secret.png", "image_path"),
        ("../images-other/x.png", "image_path"),
        ("/etc/hostname", "image_path"),
        ("//host/share.png", "image_path"),
        ("out.png", "image_path"),
        ("outside/x.png", "image_path"),
        ("a.png\0", "image_path"),
        ("a" * 5000, "image_path"),
        ("https://example.org/a.png", "image_url"),
        ("file:///etc/hostname", "image_url"),
        ("data:image/png;base64,AAAA", "image_url"),
        ("C:\\pictures\\a.png", "image_url"),
        ("none.png", "image_missing"),
        ("none/a.png", "image_missing"),
        ("sub", "image_missing"),
        (".", "image_missing"),
        ("pipe.png", "image_missing"),
        ("loop.png", "image_missing"),
        ("a.png/b", "image_missing"),
        ("x" * 300, "image_missing"),
    ],
)
def test_everything_else_is_refused(root: Path, reference: str, code: str) -> None:
    with pytest.raises(PictureError) as caught:
        Root(root).find(reference)
    assert caught.value.code == code


def test_a_root_that_is_a_link_itself_is_fine(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert Root(tmp_path / "link").find("a.png")[0] == "a.png"
