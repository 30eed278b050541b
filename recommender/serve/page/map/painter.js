// Draws points into the pixels of a canvas. No GPU is asked for, and 100,000 points take a few milliseconds: a disc is a
// small table of coverages that is blended where a point lies, and points off the screen cost one comparison.

/** Coverage of a disc by pixel: {size, cover}, cover[y * size + x] from 0 to 255. */
export function disc(radius) {
  const size = Math.ceil(radius) * 2 + 1;
  const middle = (size - 1) / 2;
  const cover = new Uint8Array(size * size);
  for (let y = 0; y < size; y += 1) {
    for (let x = 0; x < size; x += 1) {
      const out = Math.hypot(x - middle, y - middle) - radius;
      cover[y * size + x] = Math.round(255 * Math.min(Math.max(0.5 - out, 0), 1));
    }
  }
  return { size, cover };
}

/**
 * Draw points on a ground. image: ImageData. points: Float32Array of x, y pairs. order: which are drawn, the last on top.
 * colours: Uint32Array, a colour for each point as `packed` gives it. alpha: 0 to 255.
 */
export function paint(image, ground, { points, order, colours, camera, radius, alpha }) {
  const { width, height } = image;
  const pixels = new Uint32Array(image.data.buffer);
  pixels.fill(ground);
  const { size, cover } = disc(radius);
  const half = (size - 1) / 2;
  for (let n = 0; n < order.length; n += 1) {
    const at = order[n];
    const left = Math.round((points[2 * at] - camera.x) * camera.scale + width / 2) - half;
    const top = Math.round(height / 2 - (points[2 * at + 1] - camera.y) * camera.scale) - half;
    if (left < 0 || top < 0 || left + size > width || top + size > height) continue;
    blend(pixels, width, left, top, size, cover, colours[at], alpha);
  }
}

function blend(pixels, width, left, top, size, cover, colour, alpha) {
  const red = colour & 255, green = (colour >> 8) & 255, blue = (colour >> 16) & 255;
  let from = 0;
  for (let y = 0; y < size; y += 1) {
    let to = (top + y) * width + left;
    for (let x = 0; x < size; x += 1, from += 1, to += 1) {
      const share = (cover[from] * alpha + 127) >> 8;
      if (!share) continue;
      const under = pixels[to];
      const r = under & 255, g = (under >> 8) & 255, b = (under >> 16) & 255;
      pixels[to] = 0xff000000 | ((b + (((blue - b) * share) >> 8)) << 16) | ((g + (((green - g) * share) >> 8)) << 8) | (r + (((red - r) * share) >> 8));
    }
  }
}

/** "#rrggbb" as a pixel of ImageData on a little-endian machine. */
export function packed(hex) {
  const number = Number.parseInt(hex.replace("#", ""), 16);
  return (0xff000000 | ((number & 255) << 16) | (number & 0xff00) | (number >> 16)) >>> 0;
}

/** A colour between the stops of a scale, at 0 to 1. */
export function between(stops, at) {
  const place = Math.min(Math.max(at, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(place), stops.length - 2);
  const share = place - low;
  const part = (pixel, shift) => (pixel >> shift) & 255;
  const mixed = [0, 8, 16].map((shift) => Math.round(part(stops[low], shift) * (1 - share) + part(stops[low + 1], shift) * share));
  return (0xff000000 | (mixed[2] << 16) | (mixed[1] << 8) | mixed[0]) >>> 0;
}
