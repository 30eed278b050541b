// Which point is under the pointer: points sorted into the cells of a grid, once.
const CELLS = 128;

/** points: Float32Array of x, y pairs within -1 to 1. */
export function lookup(points) {
  const n = points.length / 2;
  const cell = (value) => Math.min(Math.max(Math.floor(((value + 1) / 2) * CELLS), 0), CELLS - 1);
  const starts = new Uint32Array(CELLS * CELLS + 1);
  const cells = new Uint16Array(n);
  for (let at = 0; at < n; at += 1) {
    cells[at] = cell(points[2 * at + 1]) * CELLS + cell(points[2 * at]);
    starts[cells[at] + 1] += 1;
  }
  for (let at = 0; at < CELLS * CELLS; at += 1) starts[at + 1] += starts[at];
  const next = starts.slice();
  const sorted = new Uint32Array(n);
  for (let at = 0; at < n; at += 1) sorted[next[cells[at]]++] = at;

  /** The nearest point within a distance, among those that `allowed` takes; -1 for none. */
  return function nearest(x, y, within, allowed = () => true) {
    let best = -1, distance = within * within;
    for (let row = cell(y - within); row <= cell(y + within); row += 1) {
      for (let column = cell(x - within); column <= cell(x + within); column += 1) {
        const here = row * CELLS + column;
        for (let at = starts[here]; at < starts[here + 1]; at += 1) {
          const point = sorted[at];
          const far = (points[2 * point] - x) ** 2 + (points[2 * point + 1] - y) ** 2;
          if (far <= distance && allowed(point)) { best = point; distance = far; }
        }
      }
    }
    return best;
  };
}
