// Draws points into the pixels of a canvas. No GPU is asked for, and 100,000 points take some milliseconds: a disc is
// a short list of pixels with their coverage, and points off the screen cost one comparison.

/** The pixels of a disc: {half, rows, columns, cover}, places from its middle and coverage from 1 to 256. */
function disc(radius) {
  const half = Math.ceil(radius);
  const found = [];
  for (let y = -half; y <= half; y += 1) {
    for (let x = -half; x <= half; x += 1) {
      const cover = Math.round(256 * Math.min(Math.max(radius + 0.5 - Math.hypot(x, y), 0), 1));
      if (cover) found.push([x, y, cover]);
    }
  }
  return { half, columns: found.map(([x]) => x), rows: found.map(([, y]) => y),
    cover: Uint16Array.from(found, ([, , cover]) => cover) };
}

/**
 * Draw points on a ground. image: ImageData. points: Float32Array of x, y pairs. order: which, the last on top.
 * colours: Uint32Array, a colour for each point as `packed` gives it. alpha: 0 to 256, 256 hides what is below.
 */
export function paint(image, ground, { points, order, colours, camera, radius, alpha }) {
  const { width, height } = image;
  const pixels = new Uint32Array(image.data.buffer);
  pixels.fill(ground);
  const { half, columns, rows, cover } = disc(radius);
  const offsets = Int32Array.from(columns, (x, at) => rows[at] * width + x);
  const shares = cover.map((one) => (one * alpha) >> 8);
  const { x: middleX, y: middleY, scale } = camera;
  const right = width - half, bottom = height - half;
  for (let n = 0; n < order.length; n += 1) {
    const at = order[n];
    const x = Math.round((points[2 * at] - middleX) * scale + width / 2);
    const y = Math.round(height / 2 - (points[2 * at + 1] - middleY) * scale);
    if (x < half || y < half || x >= right || y >= bottom) continue;
    const place = y * width + x;
    const colour = colours[at], redBlue = colour & 0xff00ff, green = colour & 0xff00;
    for (let part = 0; part < offsets.length; part += 1) {
      const pixel = place + offsets[part], share = shares[part];
      if (share === 256) { pixels[pixel] = colour; continue; }
      const under = pixels[pixel], rest = 256 - share;
      // red and blue in one multiplication: neither can run over into the other
      pixels[pixel] = 0xff000000 | (((under & 0xff00ff) * rest + redBlue * share) >>> 8) & 0xff00ff
        | (((under & 0xff00) * rest + green * share) >>> 8) & 0xff00;
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
  const mix = (shift) => Math.round(part(stops[low], shift) * (1 - share) + part(stops[low + 1], shift) * share);
  const mixed = [0, 8, 16].map(mix);
  return (0xff000000 | (mixed[2] << 16) | (mixed[1] << 8) | mixed[0]) >>> 0;
}
