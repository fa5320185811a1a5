"""Image files of every kind that users bring, each with what a viewer shows of it.

The files are Pillow's and tifffile's; what they show is worked out in NumPy, and of 16 bits by scikit-image.
"""

import numpy as np
import tifffile
from PIL import Image
from skimage.util import img_as_ubyte

rng = np.random.default_rng(0)
PHOTO = rng.integers(0, 256, (5, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)  # (40, 64, 3)
LEVEL = PHOTO[..., 0]  # (40, 64)
GREY = np.dstack([LEVEL] * 3)
WHITE = np.full_like(LEVEL, 255)
ALPHA = np.linspace(0, 255, LEVEL.size).astype(np.uint8).reshape(LEVEL.shape)
DEEP = LEVEL.astype(np.uint16) * 256 + rng.integers(0, 256, LEVEL.shape, dtype=np.uint16)  # 16 bits
DEEP_RGB = PHOTO.astype(np.uint16) * 257
COLOURS = rng.integers(0, 256, (256, 3), dtype=np.uint8)


def turned(orientation):
    """EXIF data that says how the image is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def over_white(rgb, alpha):
    """(H, W, 3) colours and (H, W) alpha -> what is seen on white paper."""
    share = alpha[..., None] / 255
    return np.rint(rgb * share + 255 * (1 - share))


def of(array, mode=None, **options):
    """Saves an array by Pillow."""
    image = Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)
    return lambda path: image.save(path, **options)


def tiff(array, **options):
    """Saves an array by tifffile."""
    return lambda path: tifffile.imwrite(path, array, **options)


def indexed(path):
    """A palette whose colours are more or less transparent."""
    image = Image.fromarray(LEVEL, mode="P")
    image.putpalette(COLOURS.tobytes())
    image.save(path, transparency=bytes(range(256)))


def grey(levels):
    return np.dstack([levels] * 3)


more = {"save_all": True, "append_images": [Image.fromarray(WHITE)]}  # a second frame
blank = np.where(LEVEL == LEVEL[0, 0], 255, LEVEL)  # the level of the corner is transparent
ink = 255 - PHOTO.astype(int)
# kind -> suffix, how it is saved, (H, W, 3) what a viewer shows
IMAGES = {
    "png": (".png", of(PHOTO), PHOTO),
    "capitals": (".PNG", of(PHOTO), PHOTO),
    "png turned": (".png", of(PHOTO, exif=turned(6)), np.rot90(PHOTO, -1)),
    "webp mirrored": (".webp", of(PHOTO, lossless=True, exif=turned(2)), PHOTO[:, ::-1]),
    "tiff turned": (".tif", of(PHOTO, exif=turned(8)), np.rot90(PHOTO)),
    "jpeg turned": (".jpeg", of(PHOTO, quality=100, subsampling=0, exif=turned(3)), PHOTO[::-1, ::-1]),
    "bmp": (".bmp", of(PHOTO), PHOTO),
    "ppm": (".ppm", of(PHOTO), PHOTO),
    "tga": (".tga", of(PHOTO), PHOTO),
    "avif": (".avif", of(np.full_like(PHOTO, 90), quality=100), np.full_like(PHOTO, 90)),
    "1 bit": (".png", of(np.where(LEVEL > 99, 255, 0).astype(np.uint8), "1"), grey(255 * (LEVEL > 99))),
    "RGBA": (".png", of(np.dstack([PHOTO, ALPHA])), over_white(PHOTO, ALPHA)),
    "grey, alpha": (".png", of(np.dstack([LEVEL, ALPHA])), over_white(GREY, ALPHA)),
    "palette, alpha": (".png", indexed, over_white(COLOURS[LEVEL], LEVEL)),
    "a colour is transparent": (".png", of(LEVEL, transparency=int(LEVEL[0, 0])), grey(blank)),
    "16 bits": (".png", of(DEEP), grey(img_as_ubyte(DEEP))),
    "16 bits, one transparent": (".png", of(DEEP & 0xFF00, transparency=int(LEVEL[0, 0]) << 8), grey(blank)),
    "16 bits, turned": (".png", of(DEEP, exif=turned(6)), np.rot90(grey(img_as_ubyte(DEEP)), -1)),
    "16 bits, tiff": (".tiff", tiff(DEEP), grey(img_as_ubyte(DEEP))),
    "16 bits, big-endian": (".tif", tiff(DEEP, byteorder=">"), grey(img_as_ubyte(DEEP))),
    "16 bits, BigTIFF": (".tif", tiff(DEEP, bigtiff=True), grey(img_as_ubyte(DEEP))),
    "16 bits, 0 is white": (".tif", tiff(~DEEP, photometric="miniswhite"), grey(img_as_ubyte(DEEP))),
    "16 bits, pgm": (".pgm", of(DEEP), grey(img_as_ubyte(DEEP))),
    "16 bits, dark": (".pgm", of(DEEP >> 9), np.zeros_like(PHOTO)),
    "16 bits, RGB": (".tif", tiff(DEEP_RGB, photometric="rgb"), img_as_ubyte(DEEP_RGB)),
    "32 bits": (".tif", tiff(DEEP.astype(np.int32)), grey(img_as_ubyte(DEEP))),
    "32 bits for 8": (".tif", tiff(LEVEL.astype(np.int32)), GREY),
    "shares": (".tif", tiff(LEVEL / np.float32(255)), grey(img_as_ubyte(LEVEL / np.float32(255)))),
    "float levels": (".tif", tiff(LEVEL.astype(np.float32)), GREY),
    "CMYK": (".tif", tiff(np.dstack([ink, ALPHA]).astype(np.uint8), photometric="separated"),
             PHOTO * (255.0 - ALPHA[..., None]) / 255),
    "frames, gif": (".gif", of(LEVEL, **more), GREY),
    "frames, png": (".png", of(LEVEL, **more), GREY),
    "frames, tiff": (".tif", of(LEVEL, **more), GREY),
    "frames, webp": (".webp", of(PHOTO, lossless=True, **more), PHOTO),
}  # fmt: skip
# kind -> floats that no viewer would show, and what the message names
NO_IMAGES = {
    "nan": ([0.5, np.nan], "nan"),
    "infinite": ([0.5, np.inf], "inf"),
    "negative": ([-3.25, 1.0], "-3.25"),
    "above white": ([0.5, 1.5], "1.5"),
    "above 16 bits": ([0.0, 70000.0], "70000"),
}
