// Where one looks at the map: a centre, and pixels to a unit.

/** {x, y, scale}: the middle of the screen in the map's units (-1 to 1), and pixels a unit. */
export function fitting(points, width, height) {
  if (!points.length) return { x: 0, y: 0, scale: Math.min(width, height) / 2.2 };
  const [left, right] = ends(points, 0);
  const [low, high] = ends(points, 1);
  const scale = Math.min(width / Math.max(right - left, 1e-3), height / Math.max(high - low, 1e-3)) * 0.88;
  return { x: (left + right) / 2, y: (low + high) / 2, scale };
}

/** The range without one point in two hundred on either side, so that a stray one does not make the rest small. */
function ends(points, axis) {
  const values = new Float32Array(points.length / 2);
  for (let at = 0; at < values.length; at += 1) values[at] = points[2 * at + axis];
  values.sort();
  const cut = Math.floor(values.length / 200);
  return [values[cut], values[values.length - 1 - cut]];
}

export const moved = (camera, dx, dy) =>
  ({ ...camera, x: camera.x - dx / camera.scale, y: camera.y + dy / camera.scale });

const LEAST = 40, GREATEST = 400_000;

/** Nearer by a factor, with the place under (px, py) staying where it is. */
export function zoomed(camera, factor, px, py, width, height) {
  const scale = Math.min(Math.max(camera.scale * factor, LEAST), GREATEST);
  const x = camera.x + (px - width / 2) * (1 / camera.scale - 1 / scale);
  const y = camera.y - (py - height / 2) * (1 / camera.scale - 1 / scale);
  return { x, y, scale };
}

export const toScreen = (camera, x, y, width, height) =>
  [(x - camera.x) * camera.scale + width / 2, height / 2 - (y - camera.y) * camera.scale];
export const toMap = (camera, px, py, width, height) =>
  [(px - width / 2) / camera.scale + camera.x, (height / 2 - py) / camera.scale + camera.y];
